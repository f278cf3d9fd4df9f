// Decode rows over blocks: a tile of 16 weight rows, a row in each 32-bit lane, times up to four activation rows that
// share the decoded codes. linear_scalar.cpp defines the numerics; integers are exact and every output has its own
// chain of f32 over k, so all instruction sets give the same bits. Included after simd_<isa>.h and int_dot_simd.h.
#pragma once

#include "codec/block_codes_simd.h"
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// Every line of the block kAhead columns further on, spread over the work: the hardware loses the stream, because
// decoding fills the window in which a core looks ahead. See docs/LOG.md, "Decode at the true byte mix".
constexpr int64_t kAhead = 512;

template <Family family>
inline void prefetch_block(const uint8_t* block, int64_t step) {
    constexpr BlockTraits traits = traits_of(family);
    constexpr int64_t lines = (traits.bytes() + 63) / 64, steps = traits.len / 32, each = (lines + steps - 1) / steps;
    const uint8_t* later = block + kAhead / traits.len * traits.bytes();
#pragma GCC unroll 16
    for (int64_t i = 0; i < each; ++i) prefetch(later + (step * each + i) * 64);
}

// Sub-scales of 32 columns as the dot wants them.
struct DotScales {
    Ints first, second;   // of 16 columns each; the same where a sub-block has 32
    Ints pair, min_pair;  // 16 bits each: of the first and of the second 16 columns
};

template <Family family>
inline DotScales load_dot_scales(const SubScaleBytes<family>& subs, int64_t step, int64_t lane) {
    constexpr BlockTraits traits = traits_of(family);
    DotScales made{};
    const int64_t at = step * (32 / traits.sub_len) * kTileRows + lane;
    const Ints first = load_signed(subs.scales + at);
    made.first = made.second = scale_for_dot(first);
    if constexpr (traits.sub_len == 16) {
        const Ints second = load_signed(subs.scales + at + kTileRows);
        made.second = scale_for_dot(second);
        made.pair = pairs_of(first, second);
    }
    if constexpr (traits.has_min) {
        const Ints min = load_signed(subs.mins + at);
        made.min_pair = pairs_of(min, traits.sub_len == 16 ? load_signed(subs.mins + at + kTileRows) : min);
    }
    return made;
}

constexpr int log2_of(int power) {
    return power > 1 ? 1 + log2_of(power / 2) : 0;
}

// Where the activations of M rows lie, from some block on.
template <int M>
struct Inputs {
    const int8_t* q[M];
    const float* d[M];
    const int16_t* sums[M];

    Inputs(const Rows& x, int64_t i) {
        for (int m = 0; m < M; ++m) {
            q[m] = x.q + (i + m) * x.k;
            d[m] = x.d + (i + m) * (x.k / 32);
            sums[m] = x.sums + (i + m) * (x.k / 16);
        }
    }
    void advance() {
        for (int m = 0; m < M; ++m) q[m] += 32, d[m] += 1, sums[m] += 2;
    }
};

// A block of 32 columns: total = fma(dot, d dx, total), then fma(-sum, m dx, total).
template <Family family, int M>
inline void add_short_block(const uint8_t* block, const Inputs<M>& x, Vec (&totals)[M][kTileParts]) {
    constexpr BlockTraits traits = traits_of(family);
    prefetch_block<family>(block, 0);
    const Ints one = scale_of_one();
#pragma GCC unroll 2
    for (int part = 0; part < kTileParts; ++part) {
        Ints codes[8];
        load_groups<family>(block + traits.quants_at() + part * kPartBytes, codes);
        const Vec d = load_scale<family>(block + 2 * part * kLanes);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
            const Ints sums = splat_two(x.sums[m]);
            const Vec dx = splat(*x.d[m]);
            Ints dots = scaled_dot<family, 8>(codes, x.q[m], one);
            if constexpr (traits.zero != 0) dots = minus(dots, dot_pairs(sums, splat_ints(traits.zero * 0x10001)));
            totals[m][part] = fma(to_floats(dots), mul(d, dx), totals[m][part]);
            if constexpr (traits.has_min) {
                const Vec least = load_f16(reinterpret_cast<const uint16_t*>(block + traits.min_at()) + part * kLanes);
                const Vec sum = to_floats(dot_pairs(sums, splat_ints(0x10001)));
                totals[m][part] = fnma(sum, mul(least, dx), totals[m][part]);
            }
        }
    }
}

// 32 columns of a block of 256: main = fma(s dot, dx, main), least = fma(t sum, dx, least).
template <Family family, int M>
inline void add_columns(const uint8_t* block, const SubScaleBytes<family>& subs, int64_t step, const Inputs<M>& x,
                        Vec (&mains)[M][kTileParts], Vec (&leasts)[M][kTileParts]) {
    constexpr BlockTraits traits = traits_of(family);
    prefetch_block<family>(block, step);
#pragma GCC unroll 2
    for (int part = 0; part < kTileParts; ++part) {
        Ints codes[8];
        load_groups<family>(block + traits.quants_at() + step * traits.group_bytes() + part * kPartBytes, codes);
        const DotScales scales = load_dot_scales<family>(subs, step, part * kLanes);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
            const Vec dx = splat(*x.d[m]);
            Ints dots;
            if constexpr (traits.sub_len == 16) {
                dots = add_ints(scaled_dot<family, 4>(codes, x.q[m], scales.first),
                                scaled_dot<family, 4>(codes + 4, x.q[m] + 16, scales.second));
                const Ints excess = dot_pairs(splat_two(x.sums[m]), scales.pair);
                dots = minus(dots, shift_left<log2_of(traits.zero)>(excess));
            } else {
                dots = scaled_dot<family, 8>(codes, x.q[m], scales.first);
            }
            mains[m][part] = fma(to_floats(dots), dx, mains[m][part]);
            if constexpr (traits.has_min) {
                const Ints sums = dot_pairs(splat_two(x.sums[m]), scales.min_pair);
                leasts[m][part] = fma(to_floats(sums), dx, leasts[m][part]);
            }
        }
    }
}

// total = fma(d, main, total), then fma(-m, least, total).
template <Family family, int M>
inline void add_long_block(const uint8_t* block, Inputs<M>& x, Vec (&totals)[M][kTileParts]) {
    constexpr BlockTraits traits = traits_of(family);
    const SubScaleBytes<family> subs(block);
    Vec mains[M][kTileParts], leasts[M][kTileParts];
    for (int m = 0; m < M; ++m) {
        for (int part = 0; part < kTileParts; ++part) mains[m][part] = leasts[m][part] = zero();
    }
    for (int64_t step = 0; step < traits.len / 32; ++step, x.advance()) {
        add_columns<family, M>(block, subs, step, x, mains, leasts);
    }
    for (int part = 0; part < kTileParts; ++part) {
        const Vec d = load_scale<family>(block + 2 * part * kLanes);
        for (int m = 0; m < M; ++m) {
            Vec& total = totals[m][part];
            total = fma(d, mains[m][part], total);
            if constexpr (traits.has_min) {
                const auto* least = reinterpret_cast<const uint16_t*>(block + traits.min_at()) + part * kLanes;
                total = fnma(load_f16(least), leasts[m][part], total);
            }
        }
    }
}

// M activation rows from row i on times one tile, of which `num_rows` are wanted.
template <Family family, int M>
void tile_dots(const Rows& x, const uint8_t* tile, int64_t i, int64_t num_rows, float* y, int64_t ldy) {
    constexpr BlockTraits traits = traits_of(family);
    Inputs<M> in(x, i);
    Vec totals[M][kTileParts];
    for (auto& of_row : totals) {
        for (Vec& total : of_row) total = zero();
    }
    for (int64_t k = 0; k < x.k; k += traits.len, tile += traits.bytes()) {
        if constexpr (traits.sub_scales == SubScales::none) {
            add_short_block<family, M>(tile, in, totals);
            in.advance();
        } else {
            add_long_block<family, M>(tile, in, totals);
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
void tile_dots_of_rest(const Rows& x, const uint8_t* tile, int64_t i, int64_t num_rows, float* y, int64_t ldy) {
    if (x.m - i == M) return tile_dots<family, M>(x, tile, i, num_rows, y, ldy);
    if constexpr (M > 1) tile_dots_of_rest<family, M - 1>(x, tile, i, num_rows, y, ldy);
}

template <Family family>
void block_dots(const Rows& x, const Weight& w, int64_t begin, int64_t end, float* y, int64_t ldy) {
    constexpr BlockTraits traits = traits_of(family);
    const int64_t tile_bytes = w.cols / traits.len * traits.bytes();
    const auto* tile = static_cast<const uint8_t*>(w.data) + begin / kTileRows * tile_bytes;
    for (int64_t row = begin; row < end; row += kTileRows, tile += tile_bytes) {
        const int64_t num_rows = end - row < kTileRows ? end - row : kTileRows;
        float* out = y + row - begin;
        int64_t i = 0;
        for (; i + 4 <= x.m; i += 4) tile_dots<family, 4>(x, tile, i, num_rows, out + i * ldy, ldy);
        tile_dots_of_rest<family, 3>(x, tile, i, num_rows, out + i * ldy, ldy);
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
