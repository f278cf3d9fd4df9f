// Prompt rows of all families but f32 in bf16: strips of 16 activation rows times panels of 16 weight rows. Included
// after simd_amx.h.
#pragma once

#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// Columns that blocks of tiles go over before the next 256: two panels' 16 KiB and a pair of strips' 16 KiB stay in an
// L1 of 48 KiB, so that strips alone come from L2, 32 bytes a cycle of the dots. With all 512 both would come from
// there, at 64. Sums wait in y: they are the same, 8 KiB more per 512 cycles.
constexpr int64_t kDepthInL1 = 256;

struct TileBlock {
    const uint16_t* a;             // tiles of 16 rows x 32 columns one after another
    const uint16_t* b;             // of 32 columns x 16 rows
    int64_t to_next_a, to_next_b;  // values to the second strip and panel
    int64_t dots;                  // of tiles, over k
    bool first;
    float* y;
    int64_t ldy;
};

// C tiles 0 .. 3 += A tiles 4, 5 times B tiles 6, 7: four loads for four dots.
template <bool two_strips, bool two_panels>
inline void multiply_block(const TileBlock& block) {
    constexpr int64_t values = kTileBytes / 2;
    const int64_t stride = block.ldy * static_cast<int64_t>(sizeof(float));
    const uint16_t *a = block.a, *next_a = two_strips ? a + block.to_next_a : a;
    const uint16_t *b = block.b, *next_b = two_panels ? b + block.to_next_b : b;
    float *const y = block.y, *const next_y = two_strips ? y + kTileSide * block.ldy : y;
    if (block.first) {
        tile_zero<0>();
        if constexpr (two_panels) tile_zero<1>();
        if constexpr (two_strips) tile_zero<2>();
        if constexpr (two_strips && two_panels) tile_zero<3>();
    } else {
        tile_load<0>(y, stride);
        if constexpr (two_panels) tile_load<1>(y + kTileSide, stride);
        if constexpr (two_strips) tile_load<2>(next_y, stride);
        if constexpr (two_strips && two_panels) tile_load<3>(next_y + kTileSide, stride);
    }
#pragma GCC unroll 1  // GCC 12 peels all and keeps the addresses on the stack
    for (int64_t i = 0; i < block.dots; ++i) {
        tile_load<6>(b + i * values, kTileRowBytes);
        tile_load<4>(a + i * values, kTileRowBytes);
        tile_dot<0, 4, 6>();
        if constexpr (two_panels) {
            tile_load<7>(next_b + i * values, kTileRowBytes);
            tile_dot<1, 4, 7>();
        }
        if constexpr (two_strips) {
            tile_load<5>(next_a + i * values, kTileRowBytes);
            tile_dot<2, 5, 6>();
            if constexpr (two_panels) tile_dot<3, 5, 7>();
        }
    }
    tile_store<0>(y, stride);
    if constexpr (two_panels) tile_store<1>(y + kTileSide, stride);
    if constexpr (two_strips) tile_store<2>(next_y, stride);
    if constexpr (two_strips && two_panels) tile_store<3>(next_y + kTileSide, stride);
}

// All strips by one panel, or two. Each element of y is one chain over k, whatever it shares a block with.
template <bool two_panels>
void multiply_strips(const Strips& x, const Panel* panels, int64_t k, int64_t depth, int64_t k_len, bool first,
                     float* y, int64_t ldy) {
    const int64_t strip = kTileSide * k_len;
    TileBlock block{reinterpret_cast<const uint16_t*>(x.values) + k * kTileSide,
                    panels[0].bf16[k / 2][0],
                    strip,
                    static_cast<int64_t>(sizeof(Panel) / sizeof(uint16_t)),
                    depth / kTileDepth,
                    first,
                    y,
                    ldy};
    int64_t row = 0;
    for (; row + kTileSide < x.m; row += 2 * kTileSide) {
        multiply_block<true, two_panels>(block);
        block.a += 2 * strip, block.y += 2 * kTileSide * ldy;
    }
    if (row < x.m) multiply_block<false, two_panels>(block);
}

void strip_product(const Strips& x, const Panel* panels, int64_t num_panels, int64_t k_len, bool first, float* y,
                   int64_t ldy) {
    const Tiles tiles;
    for (int64_t k = 0; k < k_len; k += kDepthInL1) {
        const int64_t depth = k_len - k < kDepthInL1 ? k_len - k : kDepthInL1;
        const bool begins = first && k == 0;
        int64_t i = 0;
        for (; i + 1 < num_panels; i += 2) {
            multiply_strips<true>(x, panels + i, k, depth, k_len, begins, y + i * kPanelCols, ldy);
        }
        if (i < num_panels) multiply_strips<false>(x, panels + i, k, depth, k_len, begins, y + i * kPanelCols, ldy);
    }
}

}  // namespace

void fill_linear(Kernels& table) {
    table.strip_product = strip_product;
}

}  // namespace qwick::ISA_NAMESPACE
