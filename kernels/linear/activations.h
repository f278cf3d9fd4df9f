// Activations as leaves read them: prepared once, for all weights that multiply them.
#pragma once

#include <algorithm>
#include <vector>

#include "step.h"

namespace qwick {

// The activations in every form that some span and weight need.
struct Activations {
    const float* x;          // [rows, k]
    const int8_t* q;         // [rows, k], decode rows only
    const float* d;          // [rows, k / 32]
    const int16_t* sums;     // [rows, k / 16]
    const uint8_t* shifted;  // [rows, k]: q + 128
    int64_t k;
    // Prompt rows rounded, without those between them: panels of columns one after another, each in Strips.
    const int16_t* strips;
    const float* strip_scales;  // [panels, prompt rows]
    int64_t strip_rows;         // prompt rows, filled up where the form says so
};

inline int64_t panel_columns(int64_t k, int64_t begin) {
    return std::min(k - begin, kPanelDepth);
}

// The int8 that decode rows of block families multiply.
void quantize_rows(Step& step, Activations& in, const std::vector<RowSpan>& spans);
// How many rows the strips of this many prompt rows have.
int64_t rows_of_strips(const PromptForm& form, int64_t num_prompt_rows);
// What prompt rows of all families but f32 multiply; there are num_prompt_rows of them.
void round_rows(Step& step, Activations& in, const std::vector<RowSpan>& spans, int64_t num_prompt_rows);

}  // namespace qwick
