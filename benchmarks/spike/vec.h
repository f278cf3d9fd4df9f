// One f32 vector: 8 lanes (AVX2 + FMA) or 16 (AVX-512), chosen by -DSPIKE_LANES. With -DSPIKE_SIMDE the 16-lane form
// runs, slowly but exactly, on a machine without AVX-512.
#pragma once

#ifdef SPIKE_SIMDE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#else
#include <immintrin.h>
#endif

#if SPIKE_LANES == 16
using Vec = __m512;
static inline Vec load(const float* p) {
    return _mm512_loadu_ps(p);
}
static inline void store(float* p, Vec v) {
    _mm512_storeu_ps(p, v);
}
static inline Vec splat(float x) {
    return _mm512_set1_ps(x);
}
static inline Vec mul(Vec a, Vec b) {
    return _mm512_mul_ps(a, b);
}
static inline Vec add(Vec a, Vec b) {
    return _mm512_add_ps(a, b);
}
static inline Vec sub(Vec a, Vec b) {
    return _mm512_sub_ps(a, b);
}
static inline Vec fma(Vec a, Vec b, Vec c) {
    return _mm512_fmadd_ps(a, b, c);
}
#else
using Vec = __m256;
static inline Vec load(const float* p) {
    return _mm256_loadu_ps(p);
}
static inline void store(float* p, Vec v) {
    _mm256_storeu_ps(p, v);
}
static inline Vec splat(float x) {
    return _mm256_set1_ps(x);
}
static inline Vec mul(Vec a, Vec b) {
    return _mm256_mul_ps(a, b);
}
static inline Vec add(Vec a, Vec b) {
    return _mm256_add_ps(a, b);
}
static inline Vec sub(Vec a, Vec b) {
    return _mm256_sub_ps(a, b);
}
static inline Vec fma(Vec a, Vec b, Vec c) {
    return _mm256_fmadd_ps(a, b, c);
}
#endif
constexpr int kLanes = SPIKE_LANES;

static inline float sum8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

static inline float sum(Vec v) {
    alignas(64) float lane[kLanes];
    store(lane, v);
    __m256 s = _mm256_load_ps(lane);
    for (int i = 8; i < kLanes; i += 8) s = _mm256_add_ps(s, _mm256_load_ps(lane + i));
    return sum8(s);
}
