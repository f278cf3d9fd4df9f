// Decode rows in number, for families whose codes are laborious to take apart and instruction sets without signed byte
// products: 256 columns of a tile are decoded once, into L1, for up to 16 activation rows. The numerics are
// block_dots_simd.h's. Included after simd_<isa>.h and block_codes_simd.h.
//
// Activations come as x + 128, the unsigned factor of a product, codes less their zero point as the signed one. What
// the 128s add depends on the codes alone, and is taken off where a sum of 16 bits begins. Such a sum may wrap on the
// way, it ends within range: so four groups of 6-bit codes add up, where unsigned codes allow two, and none is left to
// correct for each row of activations.
#pragma once

#include "linear/inputs_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int64_t kDecodedRows = 16, kDecodedColumns = 256;

// Measured on AVX2: codes of 4 bits are faster decoded twice. Codes of 8 bits and of tables do not fit the sums.
// u5m is not among them: nobody has measured it, and add_short_columns() knows no minima.
constexpr bool pays_decoded(Family family) {
    return family == Family::u5 || family == Family::u5k || family == Family::u6k;
}

// Up to 256 columns of a tile.
template <Family family>
struct DecodedColumns {
    static constexpr BlockTraits kTraits = traits_of(family);
    static constexpr bool kShort = kTraits.sub_scales == SubScales::none;
    static constexpr int64_t kSteps = kDecodedColumns / 32, kBlocks = kDecodedColumns / kTraits.len;
    static constexpr int64_t kSubs = 32 / kTraits.sub_len;  // in 32 columns
    static constexpr int kLargest = (1 << kTraits.bits) - (kTraits.zero != 0 ? kTraits.zero : 1);
    static constexpr int kTogether = 2 * 127 * 8 * kLargest <= 32767 && kSubs == 1 ? 8 : 4;  // groups that fit 16 bits
    static constexpr int kSums = 8 / kTogether;                                              // in 32 columns
    static_assert(2 * 255 * kLargest <= 32767 && 2 * 127 * kTogether * kLargest <= 32767, "sums end within 16 bits");

    alignas(64) int8_t codes[kSteps][8][kGroupBytes];           // less the zero point
    alignas(64) int16_t offsets[kSteps][kSums][2 * kTileRows];  // 128 times the sums of codes
    alignas(64) int16_t scales[kSteps][kSubs][2 * kTileRows];   // each twice; blocks of 256 only
    alignas(64) int16_t mins[kSteps][2 * kTileRows];            // each twice; if there are any
    alignas(64) float d[kBlocks][kTileRows], m[kBlocks][kTileRows];
};

// 32 columns: codes, and what their sums begin with.
template <Family family>
inline void decode_step(const uint8_t* quants, DecodedColumns<family>& out, int64_t step) {
    using Columns = DecodedColumns<family>;
    for (int part = 0; part < kTileParts; ++part) {
        Ints codes[8];
        load_groups<family>(quants + part * kPartBytes, codes);
#pragma GCC unroll 8
        for (int g = 0; g < 8; ++g) {
            if constexpr (Columns::kTraits.zero != 0)
                codes[g] = sub_bytes(codes[g], splat_bytes(Columns::kTraits.zero));
            store_ints(out.codes[step][g] + part * kPartBytes, codes[g]);
        }
#pragma GCC unroll 2
        for (int s = 0; s < Columns::kSums; ++s) {
            Ints sum = codes[s * Columns::kTogether];  // within a byte: -128 at least, 124 at most
#pragma GCC unroll 8
            for (int i = 1; i < Columns::kTogether; ++i) sum = add_bytes(sum, codes[s * Columns::kTogether + i]);
            const Ints offset = dot_bytes(splat_ints(static_cast<int32_t>(0x80808080)), sum);
            store_ints(out.offsets[step][s] + part * 2 * kLanes, offset);
        }
    }
}

// A block's own scales, as floats.
template <Family family>
inline void decode_scales(const uint8_t* block, DecodedColumns<family>& out, int64_t index) {
    constexpr BlockTraits traits = traits_of(family);
    for (int part = 0; part < kTileParts; ++part) {
        const auto* halves = reinterpret_cast<const uint16_t*>(block) + part * kLanes;
        store(out.d[index] + part * kLanes, load_scale<family>(halves));
        if constexpr (traits.has_min) store(out.m[index] + part * kLanes, load_f16(halves + traits.min_at() / 2));
    }
}

template <Family family>
inline void decode_sub_scales(const SubScaleBytes<family>& subs, DecodedColumns<family>& out, int64_t step) {
    using Columns = DecodedColumns<family>;
    const int64_t at = step * Columns::kSubs * kTileRows;
    for (int part = 0; part < kTileParts; ++part) {
        for (int64_t s = 0; s < Columns::kSubs; ++s) {
            const Ints scale = load_signed(subs.scales + at + s * kTileRows + part * kLanes);
            store_ints(out.scales[step][s] + part * 2 * kLanes, pairs_of(scale, scale));
        }
        if constexpr (Columns::kTraits.has_min) {
            store_ints(out.mins[step] + part * 2 * kLanes, min_pairs<family>(subs.mins + at, part));
        }
    }
}

template <Family family>
void decode_columns(const uint8_t* block, int64_t steps, DecodedColumns<family>& out) {
    constexpr BlockTraits traits = traits_of(family);
    if constexpr (DecodedColumns<family>::kShort) {
        for (int64_t step = 0; step < steps; ++step, block += traits.bytes()) {
            prefetch_block<family>(block, 0);
            decode_step<family>(block + traits.quants_at(), out, step);
            decode_scales<family>(block, out, step);
        }
    } else {
        const SubScaleBytes<family> subs(block);
        const uint8_t* quants = block + traits.quants_at();
        decode_scales<family>(block, out, 0);
        for (int64_t step = 0; step < steps; ++step, quants += traits.group_bytes()) {
            prefetch_block<family>(block, step);
            decode_step<family>(quants, out, step);
            decode_sub_scales<family>(subs, out, step);
        }
    }
}

// dots[step][r] = sum of scale (code - zero) x over 32 columns, exactly, for R rows of activations; x: + 128, ldx
// apart. A function of its own, and dots in memory: GCC 12 keeps the 16-bit sums in registers then.
template <Family family, int R>
__attribute__((noinline)) void decoded_dots(const DecodedColumns<family>& w, int64_t steps, const uint8_t* x,
                                            int64_t ldx, Ints (*dots)[R][kTileParts]) {
    using Columns = DecodedColumns<family>;
    for (int64_t step = 0; step < steps; ++step, x += 32) {
#pragma GCC unroll 2
        for (int s = 0; s < Columns::kSums; ++s) {
            Ints sums[R][kTileParts];
#pragma GCC unroll 8
            for (int i = 0; i < Columns::kTogether; ++i) {
                const int g = s * Columns::kTogether + i;
                Ints codes[kTileParts];
                for (int part = 0; part < kTileParts; ++part) {
                    codes[part] = load_ints(w.codes[step][g] + part * kPartBytes);
                }
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    const Ints four = splat_four(reinterpret_cast<const int8_t*>(x + r * ldx + 4 * g));
#pragma GCC unroll 2
                    for (int part = 0; part < kTileParts; ++part) {
                        const Ints made = dot_bytes(four, codes[part]);
                        sums[r][part] = i == 0 ? sub_pairs(made, load_ints(w.offsets[step][s] + part * 2 * kLanes))
                                               : add_pairs(sums[r][part], made);
                        keep_order(sums[r][part]);
                    }
                }
            }
#pragma GCC unroll 2
            for (int part = 0; part < kTileParts; ++part) {
                Ints scale = splat_ints(0x10001);
                if constexpr (!Columns::kShort) {
                    scale = load_ints(w.scales[step][s % Columns::kSubs] + part * 2 * kLanes);
                }
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    const Ints dot = dot_pairs(sums[r][part], scale);
                    dots[step][r][part] = s == 0 ? dot : add_ints(dots[step][r][part], dot);
                }
            }
            asm volatile("" ::: "memory");  // or the first dots stay in registers, and sums go to the stack
        }
    }
}

// One row's dots of up to eight blocks of 32, as add_short_block. No minima: see pays_decoded().
template <Family family, int R>
inline void add_short_columns(const DecodedColumns<family>& w, int64_t steps, const Ints (*dots)[R][kTileParts], int r,
                              const Inputs& x, float* totals) {
    static_assert(!traits_of(family).has_min);
    Vec sums[kTileParts];
    for (int part = 0; part < kTileParts; ++part) sums[part] = load(totals + part * kLanes);
    for (int64_t step = 0; step < steps; ++step) {
        const Vec dx = splat(x.d[step]);
        for (int part = 0; part < kTileParts; ++part) {
            sums[part] = fma(to_floats(dots[step][r][part]), mul(load(w.d[step] + part * kLanes), dx), sums[part]);
        }
    }
    for (int part = 0; part < kTileParts; ++part) store(totals + part * kLanes, sums[part]);
}

// One row's dots of a block of 256, as add_long_block.
template <Family family, int R>
inline void add_long_columns(const DecodedColumns<family>& w, const Ints (*dots)[R][kTileParts], int r, const Inputs& x,
                             float* totals) {
    constexpr bool has_min = traits_of(family).has_min;
    Vec mains[kTileParts], leasts[kTileParts];
    for (int part = 0; part < kTileParts; ++part) mains[part] = leasts[part] = zero();
#pragma GCC unroll 8
    for (int64_t step = 0; step < DecodedColumns<family>::kSteps; ++step) {
        const Vec dx = splat(x.d[step]);
#pragma GCC unroll 2
        for (int part = 0; part < kTileParts; ++part) {
            mains[part] = fma(to_floats(dots[step][r][part]), dx, mains[part]);
            if constexpr (has_min) {
                const Ints mins = load_ints(w.mins[step] + part * 2 * kLanes);
                leasts[part] = fma(to_floats(dot_pairs(splat_two(x.sums + 2 * step), mins)), dx, leasts[part]);
            }
        }
    }
    for (int part = 0; part < kTileParts; ++part) {
        float* out = totals + part * kLanes;
        Vec total = fma(load(w.d[0] + part * kLanes), mains[part], load(out));
        if constexpr (has_min) total = fnma(load(w.m[0] + part * kLanes), leasts[part], total);
        store(out, total);
    }
}

template <Family family, int R>
void add_decoded(const DecodedColumns<family>& w, int64_t steps, const uint8_t* shifted, const Inputs& x, int64_t rows,
                 float (*totals)[kTileRows]) {
    if (rows != R) {
        if constexpr (R > 1) add_decoded<family, R - 1>(w, steps, shifted, x, rows, totals);
        return;
    }
    Ints dots[DecodedColumns<family>::kSteps][R][kTileParts];
    decoded_dots<family, R>(w, steps, shifted, x.k, dots);
    for (int r = 0; r < R; ++r) {
        if constexpr (DecodedColumns<family>::kShort) {
            add_short_columns<family, R>(w, steps, dots, r, x.row(r), totals[r]);
        } else {
            add_long_columns<family, R>(w, dots, r, x.row(r), totals[r]);
        }
    }
}

// `m` <= kDecodedRows activation rows from row i on times one tile, of which `num_rows` are wanted.
template <Family family>
void decoded_tile_dots(const Rows& x, const uint8_t* tile, int64_t i, int64_t m, int64_t num_rows, float* y,
                       int64_t ldy) {
    using Columns = DecodedColumns<family>;
    Columns columns;
    alignas(64) float totals[kDecodedRows][kTileRows] = {};
    for (int64_t k = 0; k < x.k; k += kDecodedColumns) {
        const int64_t steps = x.k - k < kDecodedColumns ? (x.k - k) / 32 : Columns::kSteps;
        decode_columns<family>(tile, steps, columns);
        tile += Columns::kBlocks * Columns::kTraits.bytes();
        for_even_parts(m, 4, [&](int64_t first, int64_t count) {
            const Inputs in = Inputs{x.q, x.d, x.sums, x.k}.row(i + first).from(k);
            add_decoded<family, 4>(columns, steps, x.shifted + (i + first) * x.k + k, in, count, totals + first);
        });
    }
    for (int64_t row = 0; row < m; ++row) {
        for (int64_t j = 0; j < num_rows; ++j) y[row * ldy + j] = totals[row][j];
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
