// The dot primitive of block families: codes times int8 activations, exactly, as sums in 32-bit lanes. This form needs
// AVX2 or AVX-512 BW only; an instruction set with better instructions (VNNI) brings another file in its place.
// Included after simd_<isa>.h and block_codes_simd.h.
#pragma once

#include <cstdint>

namespace qwick::ISA_NAMESPACE {
namespace {

inline Ints splat_four(const int8_t* x) {  // 4 activations, for the 4 columns of a group
    int32_t four;
    __builtin_memcpy(&four, x, sizeof four);
    return splat_ints(four);
}
inline Ints splat_two(const int16_t* x) {
    int32_t two;
    __builtin_memcpy(&two, x, sizeof two);
    return splat_ints(two);
}

// What a sub-scale looks like to scaled_dot.
inline Ints scale_for_dot(Ints scale) {
    return pairs_of(scale, scale);
}
inline Ints scale_of_one() {
    return splat_ints(0x10001);
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

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
