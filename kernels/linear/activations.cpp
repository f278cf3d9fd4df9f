#include "linear/activations.h"

namespace qwick {
namespace {

void shift(const int8_t* q, int64_t n, uint8_t* shifted) {
    for (int64_t i = 0; i < n; ++i) shifted[i] = static_cast<uint8_t>(q[i] ^ -128);
}

// Prompt rows by their place among the prompt rows of the batch.
int32_t* places_of(Step& step, const std::vector<RowSpan>& spans, int64_t num_prompt_rows) {
    auto* rows = step.scratch.get<int32_t>(num_prompt_rows);
    int64_t place = 0;
    for (const RowSpan& span : spans) {
        if (span.role != Role::prompt) continue;
        for (int64_t row = span.begin; row < span.end; ++row) rows[place++] = static_cast<int32_t>(row);
    }
    return rows;
}

}  // namespace

void quantize_rows(Step& step, Activations& in, const std::vector<RowSpan>& spans) {
    const int64_t k = in.k, rows = spans.back().end, blocks = k / kQuantBlock;
    auto* q = step.scratch.get<int8_t>(rows * k);
    auto* d = step.scratch.get<float>(rows * blocks);
    auto* sums = step.scratch.get<int16_t>(rows * blocks * 2);
    auto* shifted = step.scratch.get<uint8_t>(rows * k);
    for (const RowSpan& span : spans) {
        if (span.role != Role::decode) continue;
        step.for_pieces(span.end - span.begin, 4, [&](int64_t begin, int64_t end, int) {
            for (int64_t row = span.begin + begin; row < span.begin + end; ++row) {
                step.kernels.quantize_i8(in.x + row * k, k, q + row * k, d + row * blocks, sums + row * blocks * 2);
                shift(q + row * k, k, shifted + row * k);
            }
        });
    }
    in.q = q, in.d = d, in.sums = sums, in.shifted = shifted;
}

int64_t rows_of_strips(const PromptForm& form, int64_t num_prompt_rows) {
    if (!form.whole_strips) return num_prompt_rows;
    return (num_prompt_rows + form.strip_rows - 1) / form.strip_rows * form.strip_rows;
}

void round_rows(Step& step, Activations& in, const std::vector<RowSpan>& spans, int64_t num_prompt_rows) {
    const PromptForm form = step.kernels.prompt_form();
    const int64_t panels = (in.k + kPanelDepth - 1) / kPanelDepth, each = form.strip_rows;
    const int64_t strips = (num_prompt_rows + each - 1) / each, rows = rows_of_strips(form, num_prompt_rows);
    auto* values = step.scratch.get<int16_t>(rows * in.k);
    auto* scales = step.scratch.get<float>(num_prompt_rows * panels);
    const int32_t* row_at = places_of(step, spans, num_prompt_rows);
    step.pool.for_each(strips * panels, [&](int64_t item, int) {
        const int64_t first = item / panels * each, count = std::min(num_prompt_rows - first, each);
        const int64_t panel = item % panels, begin = panel * kPanelDepth, len = panel_columns(in.k, begin);
        const float* from[kMostStripRows];
        for (int64_t i = 0; i < count; ++i) from[i] = in.x + row_at[first + i] * in.k + begin;
        step.kernels.round_strip(from, count, len, values + begin * rows + first * len,
                                 scales + panel * num_prompt_rows + first);
    });
    in.strips = values, in.strip_scales = scales, in.strip_rows = rows;
}

}  // namespace qwick
