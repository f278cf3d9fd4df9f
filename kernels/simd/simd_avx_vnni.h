// The vector of AVX2 with the dot product of AVX-VNNI (Alder Lake, N100, Zen 5), in a namespace of its own.
#pragma once

#define ISA_NAMESPACE avx_vnni

#include "simd/simd_avx2.h"

namespace qwick::avx_vnni {
namespace {

// sum + four products of unsigned w and signed x in each 32-bit lane, exactly.
inline Ints add_dot_bytes(Ints sum, Ints w, Ints x) {
#ifdef QWICK_EMULATE
    const Ints even = _mm256_and_si256(w, _mm256_set1_epi16(0xff)), odd = _mm256_srli_epi16(w, 8);
    const Ints of_even = _mm256_madd_epi16(even, _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
    return add_ints(sum, add_ints(of_even, _mm256_madd_epi16(odd, _mm256_srai_epi16(x, 8))));
#else
    return _mm256_dpbusd_avx_epi32(sum, w, x);
#endif
}

// sum + two products of signed 16 bits in each 32-bit lane.
inline void add_dot_pairs(Ints& sum, Ints a, Ints b) {
#ifdef QWICK_EMULATE
    sum = add_ints(sum, dot_pairs(a, b));
#else
    sum = _mm256_dpwssd_avx_epi32(sum, a, b);
#endif
}

}  // namespace
}  // namespace qwick::avx_vnni
