// Integer vectors for block dots: one i32 lane per weight row, 4 bytes of consecutive k in each lane. The three forms
// (AVX2 maddubs, AVX-VNNI, AVX-512-VNNI) give the same integers.
#pragma once
#include "vec.h"

#if SPIKE_LANES == 16
using Ints = __m512i;
static inline Ints load_ints(const void* p) {
    return _mm512_loadu_si512(p);
}
static inline Ints splat32(int x) {
    return _mm512_set1_epi32(x);
}
static inline Ints bits_and(Ints a, Ints b) {
    return _mm512_and_si512(a, b);
}
static inline Ints bits_or(Ints a, Ints b) {
    return _mm512_or_si512(a, b);
}
template <int n>
static inline Ints right(Ints a) {
    return _mm512_srli_epi16(a, n);
}
template <int n>
static inline Ints left(Ints a) {
    return _mm512_slli_epi16(a, n);
}
static inline Ints add32(Ints a, Ints b) {
    return _mm512_add_epi32(a, b);
}
static inline Ints mul32(Ints a, Ints b) {
    return _mm512_mullo_epi32(a, b);
}
static inline Ints shift_right_32(Ints a, int n) {
    return _mm512_srli_epi32(a, n);
}
static inline Ints sub32(Ints a, Ints b) {
    return _mm512_sub_epi32(a, b);
}
#ifdef SPIKE_SIMDE  // SIMDe lacks these: two halves instead
template <class Whole, class Half>
static inline Whole join(Half low, Half high) {
    Whole whole;
    __builtin_memcpy(&whole, &low, 32);
    __builtin_memcpy((char*)&whole + 32, &high, 32);
    return whole;
}
static inline Vec to_float(Ints a) {
    __m256i half[2];
    __builtin_memcpy(half, &a, 64);
    return join<Vec>(_mm256_cvtepi32_ps(half[0]), _mm256_cvtepi32_ps(half[1]));
}
static inline __m128i eight(const void* p, int i) {
    return _mm_loadl_epi64((const __m128i*)((const char*)p + 8 * i));
}
static inline Ints widen_u8(const void* p) {
    return join<Ints>(_mm256_cvtepu8_epi32(eight(p, 0)), _mm256_cvtepu8_epi32(eight(p, 1)));
}
static inline Ints widen_i8(const void* p) {
    return join<Ints>(_mm256_cvtepi8_epi32(eight(p, 0)), _mm256_cvtepi8_epi32(eight(p, 1)));
}
static inline Vec widen_f16(const void* p) {
    auto* halves = (const __m128i*)p;
    return join<Vec>(_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1)));
}
#else
static inline Vec to_float(Ints a) {
    return _mm512_cvtepi32_ps(a);
}
static inline Ints widen_u8(const void* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
}
static inline Ints widen_i8(const void* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p));
}
static inline Vec widen_f16(const void* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
#endif
#else
using Ints = __m256i;
static inline Ints load_ints(const void* p) {
    return _mm256_loadu_si256((const __m256i*)p);
}
static inline Ints splat32(int x) {
    return _mm256_set1_epi32(x);
}
static inline Ints bits_and(Ints a, Ints b) {
    return _mm256_and_si256(a, b);
}
static inline Ints bits_or(Ints a, Ints b) {
    return _mm256_or_si256(a, b);
}
template <int n>
static inline Ints right(Ints a) {
    return _mm256_srli_epi16(a, n);
}
template <int n>
static inline Ints left(Ints a) {
    return _mm256_slli_epi16(a, n);
}
static inline Ints add32(Ints a, Ints b) {
    return _mm256_add_epi32(a, b);
}
static inline Ints mul32(Ints a, Ints b) {
    return _mm256_mullo_epi32(a, b);
}
static inline Ints shift_right_32(Ints a, int n) {
    return _mm256_srli_epi32(a, n);
}
static inline Ints sub32(Ints a, Ints b) {
    return _mm256_sub_epi32(a, b);
}
static inline Vec to_float(Ints a) {
    return _mm256_cvtepi32_ps(a);
}
static inline Ints widen_u8(const void* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
}
static inline Ints widen_i8(const void* p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p));
}
static inline Vec widen_f16(const void* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
}
#endif

// scaled_dot<num>(w, x, scale): scale * sum over num groups of 4 (u8 w, i8 x), one result per lane. |scale| <= 127.
// kTop is the largest weight value: it says how many products AVX2 may add in 16 bits.
#if defined(__AVXVNNI__) || defined(__AVX512VNNI__) || SPIKE_LANES == 16
template <int num, int kTop>
static inline Ints scaled_dot(const Ints* w, const signed char* x, Ints scale) {
    Ints acc = splat32(0);
    for (int g = 0; g < num; ++g) {
        int four;
        __builtin_memcpy(&four, x + 4 * g, 4);
#if SPIKE_LANES == 16
        acc = _mm512_dpbusd_epi32(acc, w[g], splat32(four));
#else
        acc = _mm256_dpbusd_avx_epi32(acc, w[g], splat32(four));
#endif
    }
    return mul32(acc, scale);
}
#else
template <int num, int kTop>
static inline Ints scaled_dot(const Ints* w, const signed char* x, Ints scale) {
    constexpr int together = 32767 / (kTop * 127 * 2) < num ? 32767 / (kTop * 127 * 2) : num;
    Ints pair = bits_or(scale, _mm256_slli_epi32(scale, 16)), acc = splat32(0);
    if (kTop == 63) pair = _mm256_or_si256(_mm256_and_si256(scale, splat32(0xffff)), _mm256_slli_epi32(scale, 16));
    for (int g = 0; g < num; g += together) {
        Ints sum16 = splat32(0);
        for (int h = g; h < g + together; ++h) {
            int four;
            __builtin_memcpy(&four, x + 4 * h, 4);
            sum16 = _mm256_add_epi16(sum16, _mm256_maddubs_epi16(w[h], splat32(four)));
        }
        acc = add32(acc, _mm256_madd_epi16(sum16, pair));
    }
    return acc;
}
#endif
