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

}  // namespace
}  // namespace qwick::avx512_vnni
