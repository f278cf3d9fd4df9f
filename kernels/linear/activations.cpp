#include "linear/activations.h"

#include <cstring>

namespace qwick {
namespace {

void shift(const int8_t* q, int64_t n, uint8_t* shifted) {
    for (int64_t i = 0; i < n; ++i) shifted[i] = static_cast<uint8_t>(q[i] ^ -128);
}

// The integers of up to kStripRows rows, kPanelDepth apart, pair by pair.
template <int64_t rows>
void interleave(const int16_t* q, int64_t len, int16_t* out) {
    for (int64_t k = 0; k < len; k += 2, out += 2 * rows) {
        for (int64_t r = 0; r < rows; ++r) std::memcpy(out + 2 * r, q + r * kPanelDepth + k, 2 * sizeof *q);
    }
}
template <int64_t rows = kStripRows>
void interleave_rows(const int16_t* q, int64_t num_rows, int64_t len, int16_t* out) {
    if (num_rows == rows) return interleave<rows>(q, len, out);
    if constexpr (rows > 1) interleave_rows<rows - 1>(q, num_rows, len, out);
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

void round_rows(Step& step, Activations& in, const std::vector<RowSpan>& spans, int64_t num_prompt_rows) {
    const int64_t k = in.k;
    auto* ints = step.scratch.get<int16_t>(num_prompt_rows * k);
    auto* scales = step.scratch.get<float>(num_prompt_rows * ((k + kPanelDepth - 1) / kPanelDepth));
    const int32_t* row_at = places_of(step, spans, num_prompt_rows);
    step.for_pieces(num_prompt_rows, kStripRows, [&](int64_t begin, int64_t end, int) {
        int16_t q[kStripRows * kPanelDepth];
        for (int64_t at = 0; at < k; at += kPanelDepth) {
            const int64_t len = panel_columns(k, at);
            float* scale = scales + at / kPanelDepth * num_prompt_rows;
            for (int64_t place = begin; place < end; ++place) {
                scale[place] =
                    step.kernels.quantize_i16(in.x + row_at[place] * k + at, len, q + (place - begin) * kPanelDepth);
            }
            interleave_rows(q, end - begin, len, ints + at * num_prompt_rows + begin * len);
        }
    });
    in.ints = ints, in.int_scales = scales;
}

}  // namespace qwick
