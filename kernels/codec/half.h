// bf16 and f16 bit patterns in plain C++. For files compiled for every CPU; ISA files have their own conversions
// (simd/).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace qwick {

inline uint32_t float_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float bits_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline float bf16_to_f32(uint16_t bits) {
    return bits_float(static_cast<uint32_t>(bits) << 16);
}

// Nearest even; a NaN stays a (quiet) NaN.
inline uint16_t f32_to_bf16(float x) {
    const uint32_t bits = float_bits(x);
    if (std::isnan(x)) return static_cast<uint16_t>((bits >> 16) | 0x40);
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float rounded_to_bf16(float x) {
    return bf16_to_f32(f32_to_bf16(x));
}

inline float f16_to_f32(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t exponent = (half >> 10) & 31, mantissa = half & 0x3ff;
    if (exponent == 31) {  // infinity, or a NaN made quiet as the hardware does
        return bits_float(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    }
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
        return bits_float(sign | float_bits(static_cast<float>(mantissa) * 0x1p-24f));
    }
    return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

// Nearest even, overflow to infinity.
inline uint16_t f32_to_f16(float x) {
    const uint32_t bits = float_bits(x), magnitude = bits & 0x7fffffff;
    const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000) return sign | 0x7e00 | (magnitude >> 13 & 0x3ff);
    if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520, half way to 2^16, and above
    if (magnitude < 0x38800000) {  // below 2^-14: adding 0.5 leaves multiples of 2^-24 in the mantissa
        return sign | static_cast<uint16_t>(float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000);
    }
    return sign | static_cast<uint16_t>((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

}  // namespace qwick
