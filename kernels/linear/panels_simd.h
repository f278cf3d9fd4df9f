// Prompt rows of all families but f32: integers times panels of integers (codec/panel.h). Included after a vector and
// its add_dot_pairs.
#pragma once

#include "codec/panel.h"
#include "linear/inputs_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int kStripsTogether = static_cast<int>(kLanes / 8);  // as many sums as hide the latency: 12 vectors

// Strips of M rows by one panel. The sums are exact, so neither M nor the instruction matters.
template <int M, int kStrips>
void int_product_strips(const int16_t* q, const float* d, const Panel& panel, int64_t k_len, bool first, float* y,
                        int64_t ldy) {
    constexpr int kVecs = kPanelCols / kLanes, kRows = M * kStrips;
    Ints sums[kRows][kVecs];
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
        for (int v = 0; v < kVecs; ++v) sums[m][v] = splat_ints(0);
    }
    for (int64_t four = 0; four < k_len / 2; four += 4) {  // a loop's own instructions and moves were a tenth
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            Ints weights[kVecs];
#pragma GCC unroll 2
            for (int v = 0; v < kVecs; ++v) weights[v] = load_ints(panel.codes[four + i][v * kLanes]);
#pragma GCC unroll 16
            for (int m = 0; m < kRows; ++m) {
                const Ints two = splat_two(q + m / M * M * k_len + ((four + i) * M + m % M) * 2);
#pragma GCC unroll 2
                for (int v = 0; v < kVecs; ++v) add_dot_pairs(sums[m][v], two, weights[v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
        for (int v = 0; v < kVecs; ++v) {
            float* out = y + m * ldy + v * kLanes;
            const Vec scale = mul(splat(d[m]), load(panel.scales + v * kLanes));
            store(out, fma(to_floats(sums[m][v]), scale, first ? zero() : load(out)));
        }
    }
}

// A strip of m <= M rows.
template <int M>
void int_product_strip(const int16_t* q, const float* d, int64_t m, const Panel& panel, int64_t k_len, bool first,
                       float* y, int64_t ldy) {
    if (m == M) return int_product_strips<M, 1>(q, d, panel, k_len, first, y, ldy);
    if constexpr (M > 1) int_product_strip<M - 1>(q, d, m, panel, k_len, first, y, ldy);
}

void int_panel_product(const Strips& x, const Panel& panel, int64_t k_len, bool first, float* y, int64_t ldy) {
    constexpr int64_t together = kStripsTogether * kStripRows;
    int64_t row = 0;
    for (; row + together <= x.m; row += together) {
        int_product_strips<kStripRows, kStripsTogether>(x.values + row * k_len, x.scales + row, panel, k_len, first,
                                                        y + row * ldy, ldy);
    }
    for (; row < x.m; row += kStripRows) {
        const int64_t m = x.m - row < kStripRows ? x.m - row : kStripRows;
        int_product_strip<kStripRows>(x.values + row * k_len, x.scales + row, m, panel, k_len, first, y + row * ldy,
                                      ldy);
    }
}

void strip_product(const Strips& x, const Panel* panels, int64_t num_panels, int64_t k_len, bool first, float* y,
                   int64_t ldy) {
    for (int64_t i = 0; i < num_panels; ++i) int_panel_product(x, panels[i], k_len, first, y + i * kPanelCols, ldy);
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
