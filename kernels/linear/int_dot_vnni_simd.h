// The dot primitive of block families with VNNI, which adds four products of unsigned and signed bytes to a 32-bit lane
// in one instruction. Same meaning and bits as int_dot_simd.h. Included after a vector with add_dot_bytes and
// block_codes_simd.h.
#pragma once

#include "linear/inputs_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// Activation rows that share codes in registers. Eight would fit those of AVX-512, for 6 to 8 % (llvm-mca) and twice
// the code.
constexpr int kSharingRows = 4;
constexpr bool kDecodesForMany = false;  // taking codes apart is the smaller part here

// Every family is unsigned here: signed codes and entries of tables are moved up by this.
constexpr int zero_of(const BlockTraits& traits) {
    if (traits.bits == 8 || traits.codes == Codes::iq4) return 128;
    return traits.codes == Codes::fp4 ? 12 : traits.zero;
}

template <Family family, int g>
inline Ints load_unsigned(const uint8_t* quants) {
    constexpr BlockTraits traits = traits_of(family);
    constexpr int zero = zero_of(traits);
    const Ints codes = load_group<family, g>(quants);
    if constexpr (!traits.is_signed()) return codes;
    if constexpr (zero == 128) return flipped(codes, splat_bytes(zero));  // adds it, modulo 256
    return add_bytes(codes, splat_bytes(zero));
}

template <Family family, int M, int g, int n>
inline void add_products(const uint8_t* quants, const Inputs& x, Ints (&sums)[M][kTileParts]) {
    Ints codes[kTileParts];
    for (int part = 0; part < kTileParts; ++part) codes[part] = load_unsigned<family, g>(quants + part * kPartBytes);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
        const Ints four = splat_four(x.q + m * x.k + 4 * g);
#pragma GCC unroll 2
        for (int part = 0; part < kTileParts; ++part) {
            sums[m][part] = add_dot_bytes(sums[m][part], codes[part], four);
        }
    }
    if constexpr (n > 1) add_products<family, M, g + 1, n - 1>(quants, x, sums);
}

// sums = (code - zero) x over groups g .. g + n - 1. They begin with what the zero point takes away, from the two sums
// of 16 activations: all 32 columns, or one half.
template <Family family, int M, int g, int n>
inline void dots_of_groups(const uint8_t* quants, const Inputs& x, Ints (&sums)[M][kTileParts]) {
    constexpr int zero = zero_of(traits_of(family));
    constexpr uint32_t low = g == 0 ? -zero & 0xffff : 0, high = g + n == 8 ? -zero & 0xffff : 0;
    const Ints zeros = splat_ints(static_cast<int32_t>(high << 16 | low));
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
        const Ints start = zero == 0 ? splat_ints(0) : dot_pairs(x.sums_of_16(m), zeros);
        for (int part = 0; part < kTileParts; ++part) sums[m][part] = start;
    }
    add_products<family, M, g, n>(quants, x, sums);
}

// As in int_dot_simd.h. Scaled as floats: products below 2^24 are exact, and a multiplication takes one slot where
// vpmulld takes two and pairs of 16 bits do not hold these dots.
template <Family family, int M>
inline void column_dots(const uint8_t* quants, const int8_t* scales, const Inputs& x, Vec (&dots)[M][kTileParts]) {
    constexpr BlockTraits traits = traits_of(family);
    constexpr bool has_scales = traits.sub_scales != SubScales::none;
    constexpr int together = static_cast<int>(traits.sub_len / 4);
    Ints sums[M][kTileParts];
    dots_of_groups<family, M, 0, together>(quants, x, sums);
#pragma GCC unroll 2
    for (int part = 0; part < kTileParts; ++part) {
        Vec scale{};
        if constexpr (has_scales) scale = to_floats(load_signed(scales + part * kLanes));
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
            dots[m][part] = to_floats(sums[m][part]);
            if constexpr (has_scales) dots[m][part] = mul(dots[m][part], scale);
        }
    }
    if constexpr (together == 4) {
        dots_of_groups<family, M, 4, 4>(quants, x, sums);
#pragma GCC unroll 2
        for (int part = 0; part < kTileParts; ++part) {
            const Vec scale = to_floats(load_signed(scales + kTileRows + part * kLanes));
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) dots[m][part] = fma(to_floats(sums[m][part]), scale, dots[m][part]);
        }
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
