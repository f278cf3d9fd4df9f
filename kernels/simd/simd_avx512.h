// One vector of 16 f32 lanes: AVX-512 F, BW, DQ, VL. Same names and meaning as simd_avx2.h, so a kernel is written
// once. Everything has internal linkage: no other file may end up with code compiled for this ISA (see
// docs/kernels.md). Only intrinsics that SIMDe 0.8.2 has are used, so that machines without AVX-512 can test this code.
#pragma once

// GCC 12 finds these in its own header (bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#ifdef QWICK_EMULATE
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#else
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>

#ifndef ISA_NAMESPACE  // or that of an instruction set with the same vectors: simd_avx512_vnni.h
#define ISA_NAMESPACE avx512
#endif

namespace qwick::ISA_NAMESPACE {
namespace {

using Vec = __m512;
using Ints = __m512i;
constexpr int64_t kLanes = 16;
constexpr int kPanelRows = 12;  // rows of a panel product that stay in registers: 12 x 16 columns

// clang-format off
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline Vec zero() { return _mm512_setzero_ps(); }
inline Vec splat(float x) { return _mm512_set1_ps(x); }
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }    // a * b + c
inline Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a * b
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }                // b where either is a NaN
inline Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }                // b where either is a NaN
inline Vec abs(Vec a) { return _mm512_abs_ps(a); }
// clang-format on

// Masks by halves: SIMDe's 512-bit masked loads and stores touch all of the memory.
inline __m256i half_mask(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
// The first n lanes (0 <= n <= kLanes); the others are `fill`, and their memory is not touched.
inline Vec load_n(const float* p, int64_t n, Vec fill) {
    const __m256 low = _mm256_maskload_ps(p, half_mask(n)), high = _mm256_maskload_ps(p + 8, half_mask(n - 8));
    const Vec both = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
    return _mm512_mask_mov_ps(fill, static_cast<__mmask16>((1u << n) - 1), both);
}
inline void store_n(float* p, Vec v, int64_t n) {
    _mm256_maskstore_ps(p, half_mask(n), _mm512_castps512_ps256(v));
    _mm256_maskstore_ps(p + 8, half_mask(n - 8), _mm512_extractf32x8_ps(v, 1));
}

// Always the same tree: halves, quarters, eighths, then pairs.
inline float reduce_add(Vec v) {
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float reduce_max(Vec v) {
    const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// clang-format off
inline Ints to_ints(Vec v) { return _mm512_cvtps_epi32(v); }  // half to even
inline Vec to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
inline Ints half(Ints v) { return _mm512_srai_epi32(v, 1); }
inline Ints minus(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
// clang-format on
inline Vec power_of_two(Ints n) {  // -126 <= n <= 127
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}
inline Vec zero_where_less(Vec value, Vec x, Vec limit) {  // 0 where x < limit
    return _mm512_mask_mov_ps(value, _mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), zero());
}

// --- storage formats

inline Vec load_bf16(const uint16_t* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline Vec load_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline void store_f16(uint16_t* p, Vec v) {
    const __m128i low = _mm256_cvtps_ph(_mm512_castps512_ps256(v), _MM_FROUND_TO_NEAREST_INT);
    const __m128i high = _mm256_cvtps_ph(_mm512_extractf32x8_ps(v, 1), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), low);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), high);
}
inline void store_i8(int8_t* p, Vec v) {  // rounded half to even
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(to_ints(v)));
}
inline void store_i16(int16_t* p, Vec v) {  // rounded half to even
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(to_ints(v)));
}
inline Ints narrow(Vec low, Vec high) {  // 2 kLanes values, in order, rounded half to even to 16 bits
    const __m512i all = _mm512_castsi256_si512(_mm512_cvtsepi32_epi16(to_ints(low)));
    return _mm512_inserti64x4(all, _mm512_cvtsepi32_epi16(to_ints(high)), 1);
}
// Nearest even. A NaN stays a quiet NaN; its low half is cleared first so that nothing carries.
inline Vec round_bf16(Vec v) {
    const Ints high = _mm512_set1_epi32(static_cast<int>(0xffff0000)), plain = _mm512_castps_si512(v);
    const Ints quiet = _mm512_and_si512(_mm512_or_si512(plain, _mm512_set1_epi32(0x400000)), high);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const Ints bits = _mm512_castps_si512(_mm512_mask_mov_ps(v, nan, _mm512_castsi512_ps(quiet)));
    const Ints odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const Ints up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_castsi512_ps(_mm512_and_si512(up, high));
}

// --- blocks: vectors of bytes and 16-bit pairs, one 32-bit lane per weight row (blocks.h)

// clang-format off
inline Ints load_ints(const void* p) { return _mm512_loadu_si512(p); }
inline void store_ints(void* p, Ints v) { _mm512_storeu_si512(p, v); }
inline Ints splat_ints(int32_t x) { return _mm512_set1_epi32(x); }
inline Ints both(Ints a, Ints b) { return _mm512_and_si512(a, b); }
inline Ints either(Ints a, Ints b) { return _mm512_or_si512(a, b); }
inline Ints flipped(Ints a, Ints b) { return _mm512_xor_si512(a, b); }
inline Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints add_pairs(Ints a, Ints b) { return _mm512_add_epi16(a, b); }
inline Ints sub_pairs(Ints a, Ints b) { return _mm512_sub_epi16(a, b); }
inline Ints add_bytes(Ints a, Ints b) { return _mm512_add_epi8(a, b); }
inline Ints sub_bytes(Ints a, Ints b) { return _mm512_sub_epi8(a, b); }
inline Ints dot_pairs(Ints a, Ints b) { return _mm512_madd_epi16(a, b); }  // 16-bit products, summed two by two
inline Ints dot_bytes(Ints w, Ints x) { return _mm512_maddubs_epi16(w, x); }  // the same of unsigned w, signed x
inline Ints abs_bytes(Ints v) { return _mm512_abs_epi8(v); }
inline Ints mul_round(Ints a, Ints b) { return _mm512_mulhrs_epi16(a, b); }  // (a b + 2^14) >> 15, of 16 bits each
inline Ints bits_of(Vec v) { return _mm512_castps_si512(v); }
inline Vec floats_of(Ints v) { return _mm512_castsi512_ps(v); }
inline Ints larger(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
template <int n> inline Ints shift_left(Ints v) { return _mm512_slli_epi32(v, n); }
template <int n> inline Ints shift_right(Ints v) { return _mm512_srli_epi32(v, n); }
template <int n> inline Ints shift_right_signed(Ints v) { return _mm512_srai_epi32(v, n); }
// clang-format on
inline Ints where_greater(Ints a, Ints b) {  // all ones or zero
    return _mm512_maskz_mov_epi32(_mm512_cmpgt_epi32_mask(a, b), _mm512_set1_epi32(-1));
}
inline Ints with_sign(Ints x, Ints w) {  // x, negated where w is negative: where w is 0, it does not count
    return _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
}
inline Ints load_signed(const int8_t* p) {  // kLanes bytes
    return _mm512_cvtepi16_epi32(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline Ints load_signed_pairs(const int8_t* p) {  // 2 kLanes bytes, as 16-bit pairs
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Ints pairs_of(Ints low, Ints high) {  // the lower 16 bits of each lane of both
    return _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(high, 16));
}
inline Ints look_up(const int8_t* table, Ints index) {  // 16 entries, bytes of 0 .. 15
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), index);
}

inline Ints shuffle_bytes(Ints v, const int8_t* index) {  // in each 16 bytes; zero where the index is negative
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(index))));
}

// Keeps GCC 12 from turning a chain of 16-bit additions into a tree that does not fit the registers.
inline void keep_order(Ints& v) {
#ifdef QWICK_EMULATE
    static_cast<void>(v);
#else
    asm("" : "+v"(v));
#endif
}

// sum + two products of signed 16 bits in each 32-bit lane.
inline void multiply_add_pairs(Ints& sum, Ints a, Ints b) {
    sum = add_ints(sum, dot_pairs(a, b));
    keep_order(sum);
}

// --- panels

// 16 rows of kLanes values become kLanes rows of 16.
inline void store_transposed(const Vec* rows, float* out) {
    Vec pairs[16], quads[16];
    for (int i = 0; i < 8; ++i) {
        pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    // quads[4 b + c], 128-bit piece p: column 4 p + c of rows 4 b .. 4 b + 3.
    for (int i = 0; i < 16; i += 4) {
        quads[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
        quads[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
        quads[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
        quads[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
    for (int c = 0; c < 4; ++c) {
        const Vec even_top = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0x88);  // pieces 0, 2 of rows 0-3 and 4-7
        const Vec odd_top = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0xdd);   // pieces 1, 3
        const Vec even_low =
            _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0x88);  // the same of rows 8-11 and 12-15
        const Vec odd_low = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0xdd);
        store(out + c * 16, _mm512_shuffle_f32x4(even_top, even_low, 0x88));
        store(out + (4 + c) * 16, _mm512_shuffle_f32x4(odd_top, odd_low, 0x88));
        store(out + (8 + c) * 16, _mm512_shuffle_f32x4(even_top, even_low, 0xdd));
        store(out + (12 + c) * 16, _mm512_shuffle_f32x4(odd_top, odd_low, 0xdd));
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE

#include "simd/math_simd.h"  // written over the vector above
