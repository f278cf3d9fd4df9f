// The dot primitive of block families: codes times int8 activations, exactly: column_dots(). This form needs AVX2 or
// AVX-512 BW only; an instruction set with better instructions (VNNI) brings another file in its place.
// Included after simd_<isa>.h and block_codes_simd.h.
#pragma once

#include "linear/inputs_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int kSharingRows = 4;         // activation rows that share codes in registers
constexpr bool kDecodesForMany = true;  // more of them: decoded_dots_simd.h

inline void add_dot_pairs(Ints& sum, Ints a, Ints b) {
    multiply_add_pairs(sum, a, b);
}

constexpr int largest_code(const BlockTraits& traits) {  // in magnitude
    if (traits.codes == Codes::iq4) return 127;
    if (traits.codes == Codes::fp4) return 12;
    return traits.bits == 8 ? 128 : (1 << traits.bits) - 1;
}

// sums (+)= four products of each lane, two and two as 16 bits, for groups g .. g + n - 1 of the codes. Signed codes:
// their magnitude times x with their sign.
template <Family family, int M, int g, int n, bool first = true>
inline void add_products(const uint8_t* quants, const int8_t* x, int64_t ldx, Ints (&sums)[M][kTileParts]) {
    constexpr bool is_signed = traits_of(family).is_signed();
    Ints codes[kTileParts], sizes[kTileParts];
    for (int part = 0; part < kTileParts; ++part) {
        codes[part] = load_group<family, g>(quants + part * kPartBytes);
        sizes[part] = is_signed ? abs_bytes(codes[part]) : codes[part];
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
        const Ints four = splat_four(x + m * ldx + 4 * g);
#pragma GCC unroll 2
        for (int part = 0; part < kTileParts; ++part) {
            const Ints made = dot_bytes(sizes[part], is_signed ? with_sign(four, codes[part]) : four);
            sums[m][part] = first ? made : add_pairs(sums[m][part], made);
            keep_order(sums[m][part]);
        }
    }
    if constexpr (n > 1) add_products<family, M, g + 1, n - 1, false>(quants, x, ldx, sums);
}

// dots (+)= scale times the sum over groups g .. g + n - 1, for M rows of activations, ldx apart, and all 16 weight
// rows.
template <Family family, int M, int g, int n, bool first>
inline void add_scaled_dots(const uint8_t* quants, const int8_t* x, int64_t ldx, const Ints (&scales)[kTileParts],
                            Ints (&dots)[M][kTileParts]) {
    constexpr int most = 32767 / (2 * 127 * largest_code(traits_of(family)));  // sums that fit 16 bits
    constexpr int together = most < n ? most : n;
    Ints sums[M][kTileParts];
    add_products<family, M, g, together>(quants, x, ldx, sums);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
        for (int part = 0; part < kTileParts; ++part) {
            const Ints dot = dot_pairs(sums[m][part], scales[part]);
            dots[m][part] = first ? dot : add_ints(dots[m][part], dot);
        }
    }
    if constexpr (n > together) {
        add_scaled_dots<family, M, g + together, n - together, false>(quants, x, ldx, scales, dots);
    }
}

// 32 columns without sub-scales.
template <Family family, int M>
inline void plain_dots(const uint8_t* quants, const Inputs& x, Ints (&dots)[M][kTileParts]) {
    constexpr int zero = traits_of(family).zero;
    Ints ones[kTileParts];
    for (Ints& one : ones) one = splat_ints(0x10001);
    add_scaled_dots<family, M, 0, 8, true>(quants, x.q, x.k, ones, dots);
    if constexpr (zero != 0) {
#pragma GCC unroll 2
        for (int part = 0; part < kTileParts; ++part) {
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) {
                dots[m][part] = minus(dots[m][part], dot_pairs(x.sums_of_16(m), splat_ints(zero * 0x10001)));
            }
        }
    }
}

constexpr int log2_of(int power) {
    return power > 1 ? 1 + log2_of(power / 2) : 0;
}

// The sub-scales of 32 columns times their dots. Zero points wait for the end: the sums of activations are scaled
// alike.
template <Family family, int M>
inline void scaled_dots(const uint8_t* quants, const int8_t* scales, const Inputs& x, Ints (&dots)[M][kTileParts]) {
    constexpr BlockTraits traits = traits_of(family);
    Ints first[kTileParts], pairs[kTileParts];
    for (int part = 0; part < kTileParts; ++part) {
        first[part] = load_signed(scales + part * kLanes);
        pairs[part] = pairs_of(first[part], first[part]);
    }
    add_scaled_dots<family, M, 0, traits.sub_len / 4, true>(quants, x.q, x.k, pairs, dots);
    if constexpr (traits.sub_len == 16) {
        Ints both_scales[kTileParts];
        for (int part = 0; part < kTileParts; ++part) {
            const Ints second = load_signed(scales + kTileRows + part * kLanes);
            pairs[part] = pairs_of(second, second);
            both_scales[part] = pairs_of(first[part], second);
        }
        add_scaled_dots<family, M, 4, 4, false>(quants, x.q, x.k, pairs, dots);
        for (int part = 0; part < kTileParts; ++part) {
            for (int m = 0; m < M; ++m) {
                const Ints excess = dot_pairs(x.sums_of_16(m), both_scales[part]);
                dots[m][part] = minus(dots[m][part], shift_left<log2_of(traits.zero)>(excess));
            }
        }
    }
}

// dots = sum of scale (code - zero) x over 32 columns, exactly (below 2^24), for M rows of activations and 16 weight
// rows. `scales`: where their sub-scales begin, if the family has any.
template <Family family, int M>
inline void column_dots(const uint8_t* quants, const int8_t* scales, const Inputs& x, Vec (&dots)[M][kTileParts]) {
    Ints sums[M][kTileParts];
    if constexpr (traits_of(family).sub_scales == SubScales::none) {
        plain_dots<family, M>(quants, x, sums);
    } else {
        scaled_dots<family, M>(quants, scales, x, sums);
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
        for (int part = 0; part < kTileParts; ++part) dots[m][part] = to_floats(sums[m][part]);
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
