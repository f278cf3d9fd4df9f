// One vector of 8 f32 lanes: AVX2 + FMA + F16C. Same names and meaning as simd_avx512.h, so a kernel is written once.
// Everything has internal linkage: no other file may end up with code compiled for this ISA (see docs/kernels.md).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#ifndef ISA_NAMESPACE  // or that of an instruction set with the same vectors: simd_avx_vnni.h
#define ISA_NAMESPACE avx2
#endif

namespace qwick::ISA_NAMESPACE {
namespace {

using Vec = __m256;
using Ints = __m256i;
constexpr int64_t kLanes = 8;
constexpr int kPanelRows = 6;  // rows of a panel product that stay in registers: 6 x 16 columns

// clang-format off
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec splat(float x) { return _mm256_set1_ps(x); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }    // a * b + c
inline Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a * b
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }                // b where either is a NaN
inline Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }                // b where either is a NaN
inline Vec abs(Vec a) { return _mm256_andnot_ps(splat(-0.0f), a); }
// clang-format on

inline Ints lane_mask(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
// The first n lanes (0 <= n <= kLanes); the others are `fill`, and their memory is not touched.
inline Vec load_n(const float* p, int64_t n, Vec fill) {
    const Ints mask = lane_mask(n);
    return _mm256_blendv_ps(fill, _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
}
inline void store_n(float* p, Vec v, int64_t n) {
    _mm256_maskstore_ps(p, lane_mask(n), v);
}

// Always the same tree: halves, then quarters, then pairs.
inline float reduce_add(Vec v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float reduce_max(Vec v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// clang-format off
inline Ints to_ints(Vec v) { return _mm256_cvtps_epi32(v); }  // half to even
inline Vec to_floats(Ints v) { return _mm256_cvtepi32_ps(v); }
inline Ints half(Ints v) { return _mm256_srai_epi32(v, 1); }
inline Ints minus(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
// clang-format on
inline Vec power_of_two(Ints n) {  // -126 <= n <= 127
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
inline Vec zero_where_less(Vec value, Vec x, Vec limit) {  // 0 where x < limit
    return _mm256_andnot_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ), value);
}

// --- storage formats

inline Vec load_bf16(const uint16_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Vec load_f16(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void store_f16(uint16_t* p, Vec v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_i8(int8_t* p, Vec v) {  // rounded half to even
    const Ints ints = to_ints(v);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256(ints, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
inline void store_i16(int16_t* p, Vec v) {  // rounded half to even
    const Ints ints = to_ints(v);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256(ints, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), words);
}
inline Ints narrow(Vec low, Vec high) {  // 2 kLanes values, in order, rounded half to even to 16 bits
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(to_ints(low), to_ints(high)), 0xd8);
}
// Nearest even. A NaN stays a quiet NaN; its low half is cleared first so that nothing carries.
inline Vec round_bf16(Vec v) {
    const Ints high = _mm256_set1_epi32(static_cast<int>(0xffff0000)), plain = _mm256_castps_si256(v);
    const Ints quiet = _mm256_and_si256(_mm256_or_si256(plain, _mm256_set1_epi32(0x400000)), high);
    const Vec nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    const Ints bits = _mm256_castps_si256(_mm256_blendv_ps(v, _mm256_castsi256_ps(quiet), nan));
    const Ints odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const Ints up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    return _mm256_castsi256_ps(_mm256_and_si256(up, high));
}

// --- blocks: vectors of bytes and 16-bit pairs, one 32-bit lane per weight row (blocks.h)

// clang-format off
inline Ints load_ints(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store_ints(void* p, Ints v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
inline Ints splat_ints(int32_t x) { return _mm256_set1_epi32(x); }
inline Ints both(Ints a, Ints b) { return _mm256_and_si256(a, b); }
inline Ints either(Ints a, Ints b) { return _mm256_or_si256(a, b); }
inline Ints flipped(Ints a, Ints b) { return _mm256_xor_si256(a, b); }
inline Ints add_ints(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints add_pairs(Ints a, Ints b) { return _mm256_add_epi16(a, b); }
inline Ints sub_pairs(Ints a, Ints b) { return _mm256_sub_epi16(a, b); }
inline Ints add_bytes(Ints a, Ints b) { return _mm256_add_epi8(a, b); }
inline Ints sub_bytes(Ints a, Ints b) { return _mm256_sub_epi8(a, b); }
inline Ints dot_pairs(Ints a, Ints b) { return _mm256_madd_epi16(a, b); }  // 16-bit products, summed two by two
inline Ints dot_bytes(Ints w, Ints x) { return _mm256_maddubs_epi16(w, x); }  // the same of unsigned w, signed x
inline Ints abs_bytes(Ints v) { return _mm256_abs_epi8(v); }
inline Ints with_sign(Ints x, Ints w) { return _mm256_sign_epi8(x, w); }  // x times the sign of w; x >= -127
inline Ints mul_round(Ints a, Ints b) { return _mm256_mulhrs_epi16(a, b); }  // (a b + 2^14) >> 15, of 16 bits each
inline Ints bits_of(Vec v) { return _mm256_castps_si256(v); }
inline Vec floats_of(Ints v) { return _mm256_castsi256_ps(v); }
inline Ints larger(Ints a, Ints b) { return _mm256_max_epi32(a, b); }
inline Ints where_greater(Ints a, Ints b) { return _mm256_cmpgt_epi32(a, b); }  // all ones or zero
template <int n> inline Ints shift_left(Ints v) { return _mm256_slli_epi32(v, n); }
template <int n> inline Ints shift_right(Ints v) { return _mm256_srli_epi32(v, n); }
template <int n> inline Ints shift_right_signed(Ints v) { return _mm256_srai_epi32(v, n); }
// clang-format on
inline Ints load_signed(const int8_t* p) {  // kLanes bytes
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline Ints load_signed_pairs(const int8_t* p) {  // 2 kLanes bytes, as 16-bit pairs
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Ints pairs_of(Ints low, Ints high) {  // the lower 16 bits of each lane of both
    return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa);
}
inline Ints look_up(const int8_t* table, Ints index) {  // 16 entries, bytes of 0 .. 15
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))),
                               index);
}

inline Ints shuffle_bytes(Ints v, const int8_t* index) {  // in each 16 bytes; zero where the index is negative
    return _mm256_shuffle_epi8(v,
                               _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(index))));
}

// Keeps GCC 12 from turning a chain of 16-bit additions into a tree that does not fit the registers.
inline void keep_order(Ints& v) {
    asm("" : "+x"(v));
}

// sum + two products of signed 16 bits in each 32-bit lane. GCC 12 adds into another register and moves it back.
inline void multiply_add_pairs(Ints& sum, Ints a, Ints b) {
    asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(dot_pairs(a, b)));
}

// --- panels

// 8x8: out[i * ld + j] = rows[j][i].
inline void store_transposed_8x8(const Vec* rows, float* out, int64_t ld) {
    Vec pairs[8], quads[8];
    for (int i = 0; i < 4; ++i) {
        pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
        quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
        quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
        quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
        store(out + i * ld, _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20));
        store(out + (i + 4) * ld, _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31));
    }
}
// 16 rows of kLanes values become kLanes rows of 16.
inline void store_transposed(const Vec* rows, float* out) {
    store_transposed_8x8(rows, out, 16);
    store_transposed_8x8(rows + 8, out + 8, 16);
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE

#include "simd/math_simd.h"  // written over the vector above
