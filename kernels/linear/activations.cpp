#include "linear/activations.h"

#include <cstring>

namespace qwick {
namespace {

void shift(const int8_t* q, int64_t n, uint8_t* shifted) {
    for (int64_t i = 0; i < n; ++i) shifted[i] = static_cast<uint8_t>(q[i] ^ -128);
}

// Row `place` of num_rows.
void put_into_strip(const int16_t* q, int64_t len, int64_t place, int64_t num_rows, int16_t* strips) {
    const int64_t strip = place / kStripRows * kStripRows, rows = std::min(num_rows - strip, kStripRows);
    int16_t* out = strips + strip * len + (place - strip) * 2;
    for (int64_t k = 0; k < len; k += 2, out += 2 * rows) std::memcpy(out, q + k, 2 * sizeof *q);
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
    int64_t before = 0;
    for (const RowSpan& span : spans) {
        if (span.role != Role::prompt) continue;
        const int64_t count = span.end - span.begin;
        step.for_pieces(count, 8, [&](int64_t begin, int64_t end, int) {
            for (int64_t row = begin; row < end; ++row) {
                for (int64_t at = 0; at < k; at += kPanelDepth) {
                    const int64_t len = panel_columns(k, at), place = before + row;
                    int16_t q[kPanelDepth];
                    scales[at / kPanelDepth * num_prompt_rows + place] =
                        step.kernels.quantize_i16(in.x + (span.begin + row) * k + at, len, q);
                    put_into_strip(q, len, place, num_prompt_rows, ints + at * num_prompt_rows);
                }
            }
        });
        before += count;
    }
    in.ints = ints, in.int_scales = scales;
}

}  // namespace qwick
