// Decode rows over blocks: a tile of 16 weight rows, a row in each 32-bit lane, times a few activation rows that
// share the decoded codes. linear_scalar.cpp defines the numerics; integers are exact and every output has its own
// chain of f32 over k, so all instruction sets give the same bits. Included after simd_<isa>.h and int_dot_simd.h.
#pragma once

#include "codec/block_codes_simd.h"
#include "linear/decoded_dots_simd.h"
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// A block of 32 columns: total = fma(dot, d dx, total), then fma(-sum, m dx, total).
template <Family family, int M>
inline void add_short_block(const uint8_t* block, const Inputs& x, Vec (&totals)[M][kTileParts]) {
    constexpr BlockTraits traits = traits_of(family);
    prefetch_block<family>(block, 0);
    Vec dots[M][kTileParts];
    column_dots<family, M>(block + traits.quants_at(), nullptr, x, dots);
#pragma GCC unroll 2
    for (int part = 0; part < kTileParts; ++part) {
        const auto* halves = reinterpret_cast<const uint16_t*>(block) + part * kLanes;
        const Vec d = load_scale<family>(halves);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            Vec& total = totals[m][part];
            const Vec dx = x.scale(m);
            total = fma(dots[m][part], mul(d, dx), total);
            if constexpr (traits.has_min) {
                const Vec sum = to_floats(dot_pairs(x.sums_of_16(m), splat_ints(0x10001)));
                total = fnma(sum, mul(load_f16(halves + traits.min_at() / 2), dx), total);
            }
        }
    }
}

// 32 columns of a block of 256: main = fma(s dot, dx, main), least = fma(t sum, dx, least).
template <Family family, int M>
inline void add_columns(const uint8_t* quants, const SubScaleBytes<family>& subs, int64_t step, const Inputs& x,
                        Vec (&mains)[M][kTileParts], Vec (&leasts)[M][kTileParts]) {
    constexpr BlockTraits traits = traits_of(family);
    const int64_t at = step * (32 / traits.sub_len) * kTileRows;
    Vec dots[M][kTileParts];
    column_dots<family, M>(quants, subs.scales + at, x, dots);
#pragma GCC unroll 2
    for (int part = 0; part < kTileParts; ++part) {
        Ints mins{};
        if constexpr (traits.has_min) mins = min_pairs<family>(subs.mins + at, part);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const Vec dx = x.scale(m);
            mains[m][part] = fma(dots[m][part], dx, mains[m][part]);
            if constexpr (traits.has_min) {
                leasts[m][part] = fma(to_floats(dot_pairs(x.sums_of_16(m), mins)), dx, leasts[m][part]);
            }
        }
    }
}

// total = fma(d, main, total), then fma(-m, least, total).
template <Family family, int M>
inline void add_long_block(const uint8_t* block, const Inputs& x, Vec (&totals)[M][kTileParts]) {
    constexpr BlockTraits traits = traits_of(family);
    const SubScaleBytes<family> subs(block);
    Vec mains[M][kTileParts], leasts[M][kTileParts];
    for (int m = 0; m < M; ++m) {
        for (int part = 0; part < kTileParts; ++part) mains[m][part] = leasts[m][part] = zero();
    }
    const uint8_t* quants = block + traits.quants_at();
    for (int64_t step = 0; step < traits.len / 32; ++step, quants += traits.group_bytes()) {
        prefetch_block<family>(block, step);
        add_columns<family, M>(quants, subs, step, x.from(step * 32), mains, leasts);
    }
    for (int part = 0; part < kTileParts; ++part) {
        const auto* halves = reinterpret_cast<const uint16_t*>(block) + part * kLanes;
        const Vec d = load_scale<family>(halves);
        for (int m = 0; m < M; ++m) {
            Vec& total = totals[m][part];
            total = fma(d, mains[m][part], total);
            if constexpr (traits.has_min) {
                total = fnma(load_f16(halves + traits.min_at() / 2), leasts[m][part], total);
            }
        }
    }
}

// M activation rows from row i on times one tile, of which `num_rows` are wanted.
template <Family family, int M>
void tile_dots(const Rows& x, const uint8_t* tile, int64_t i, int64_t num_rows, float* y, int64_t ldy) {
    constexpr BlockTraits traits = traits_of(family);
    const Inputs in = Inputs{x.q, x.d, x.sums, x.k}.row(i);
    Vec totals[M][kTileParts];
    for (auto& of_row : totals) {
        for (Vec& total : of_row) total = zero();
    }
    for (int64_t k = 0; k < x.k; k += traits.len, tile += traits.bytes()) {
        if constexpr (traits.sub_scales == SubScales::none) {
            add_short_block<family, M>(tile, in.from(k), totals);
        } else {
            add_long_block<family, M>(tile, in.from(k), totals);
        }
    }
    for (int m = 0; m < M; ++m) {
        for (int part = 0; part < kTileParts; ++part) {
            const int64_t left = num_rows - part * kLanes;
            float* out = y + m * ldy + part * kLanes;
            if (left >= kLanes) {
                store(out, totals[m][part]);
            } else if (left > 0) {
                store_n(out, totals[m][part], left);
            }
        }
    }
}

template <Family family, int M>
void dots_of_few(const Rows& x, const uint8_t* tile, int64_t i, int64_t m, int64_t num_rows, float* y, int64_t ldy) {
    if (m == M) return tile_dots<family, M>(x, tile, i, num_rows, y, ldy);
    if constexpr (M > 1) dots_of_few<family, M - 1>(x, tile, i, m, num_rows, y, ldy);
}

template <Family family>
void block_dots(const Rows& x, const Weight& w, int64_t begin, int64_t end, float* y, int64_t ldy) {
    constexpr BlockTraits traits = traits_of(family);
    const int64_t tile_bytes = w.cols / traits.len * traits.bytes();
    const auto* tile = static_cast<const uint8_t*>(w.data) + begin / kTileRows * tile_bytes;
    for (int64_t row = begin; row < end; row += kTileRows, tile += tile_bytes) {
        const int64_t num_rows = end - row < kTileRows ? end - row : kTileRows;
        float* out = y + row - begin;
        if constexpr (kDecodesForMany && pays_decoded(family)) {
            if (x.m > kSharingRows) {
                for_even_parts(x.m, kDecodedRows, [&](int64_t i, int64_t m) {
                    decoded_tile_dots<family>(x, tile, i, m, num_rows, out + i * ldy, ldy);
                });
                continue;
            }
        }
        for_even_parts(x.m, kSharingRows, [&](int64_t i, int64_t m) {
            dots_of_few<family, kSharingRows>(x, tile, i, m, num_rows, out + i * ldy, ldy);
        });
    }
}

template <int first>
void fill_block_dots(Kernels& table) {
    if constexpr (first < kNumFamilies) {
        table.dots[first] = block_dots<static_cast<Family>(first)>;
        fill_block_dots<first + 1>(table);
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
