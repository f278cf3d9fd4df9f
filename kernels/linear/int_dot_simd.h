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

// Four products of each lane, as two sums of 16 bits. Signed codes: their magnitude times x with their sign.
template <Family family>
inline Ints products(Ints codes, Ints x) {
    if constexpr (traits_of(family).is_signed()) return dot_bytes(abs_bytes(codes), with_sign(x, codes));
    return dot_bytes(codes, x);
}

// Keeps GCC 12 from turning a chain of 16-bit additions into a tree that does not fit the registers.
inline void keep_order(Ints& v) {
    asm("" : "+x"(v));
}

// scale times the sum over n groups.
template <Family family, int n>
inline Ints scaled_dot(const Ints* codes, const int8_t* x, Ints scale) {
    constexpr int most = 32767 / (2 * 127 * largest_code(traits_of(family)));  // sums that fit 16 bits
    constexpr int together = most < n ? most : n;
    Ints total{};
#pragma GCC unroll 8
    for (int g = 0; g < n; g += together) {
        Ints sum = products<family>(codes[g], splat_four(x + 4 * g));
#pragma GCC unroll 8
        for (int i = g + 1; i < g + together; ++i) {
            sum = add_pairs(sum, products<family>(codes[i], splat_four(x + 4 * i)));
            keep_order(sum);
        }
        const Ints dot = dot_pairs(sum, scale);
        total = g == 0 ? dot : add_ints(total, dot);
    }
    return total;
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
