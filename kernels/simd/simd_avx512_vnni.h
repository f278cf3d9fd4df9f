// The vector of AVX-512 with the dot product of AVX-512 VNNI, in a namespace of its own.
#pragma once

#define ISA_NAMESPACE avx512_vnni

#include "simd/simd_avx512.h"

namespace qwick::avx512_vnni {
namespace {

// sum + four products of unsigned w and signed x in each 32-bit lane, exactly.
inline Ints add_dot_bytes(Ints sum, Ints w, Ints x) {
    return _mm512_dpbusd_epi32(sum, w, x);
}

// sum + two products of signed 16 bits in each 32-bit lane.
inline void add_dot_pairs(Ints& sum, Ints a, Ints b) {
    sum = _mm512_dpwssd_epi32(sum, a, b);
}

}  // namespace
}  // namespace qwick::avx512_vnni
