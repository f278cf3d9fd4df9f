// Matrix products. Included after simd_<isa>.h.
#include "linear/dots_simd.h"

#include "linear/block_dots_simd.h"
#include "linear/panels_simd.h"
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// M rows by one panel of floats; every output element is one chain of fma over k, whatever M is.
template <int M>
void product_rows(const float* x, int64_t ldx, const Panel& panel, int64_t k_len, bool first, float* y, int64_t ldy) {
    constexpr int kVecs = kPanelCols / kLanes;
    Vec sums[M][kVecs];
    for (int m = 0; m < M; ++m) {
        for (int v = 0; v < kVecs; ++v) sums[m][v] = first ? zero() : load(y + m * ldy + v * kLanes);
    }
    for (int64_t k = 0; k < k_len; ++k) {
        Vec weights[kVecs];
        for (int v = 0; v < kVecs; ++v) weights[v] = load(panel.values[k] + v * kLanes);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            const Vec value = splat(x[m * ldx + k]);
#pragma GCC unroll 2
            for (int v = 0; v < kVecs; ++v) sums[m][v] = fma(value, weights[v], sums[m][v]);
        }
    }
    for (int m = 0; m < M; ++m) {
        for (int v = 0; v < kVecs; ++v) store(y + m * ldy + v * kLanes, sums[m][v]);
    }
}

// m <= M rows.
template <int M>
void product_rest(const float* x, int64_t ldx, int64_t m, const Panel& panel, int64_t k_len, bool first, float* y,
                  int64_t ldy) {
    if (m == M) return product_rows<M>(x, ldx, panel, k_len, first, y, ldy);
    if constexpr (M > 1) product_rest<M - 1>(x, ldx, m, panel, k_len, first, y, ldy);
}

void panel_product(const float* x, int64_t ldx, int64_t m, const Panel& panel, int64_t k_len, bool first, float* y,
                   int64_t ldy) {
    int64_t i = 0;
    for (; i + kPanelRows <= m; i += kPanelRows) {
        product_rows<kPanelRows>(x + i * ldx, ldx, panel, k_len, first, y + i * ldy, ldy);
    }
    product_rest<kPanelRows - 1>(x + i * ldx, ldx, m - i, panel, k_len, first, y + i * ldy, ldy);
}

}  // namespace

void fill_linear(Kernels& table) {
    table.dots[static_cast<int>(Family::f32)] = dots<FloatTile<float>>;
    table.dots[static_cast<int>(Family::bf16)] = dots<FloatTile<Bf16>>;
    table.dots[static_cast<int>(Family::f16)] = dots<FloatTile<F16>>;
    fill_block_dots<static_cast<int>(Family::i8)>(table);
    table.panel_product = panel_product;
    table.strip_product = strip_product;
}

}  // namespace qwick::ISA_NAMESPACE
