// The vector of AVX-512 with conversions to bf16 (AVX-512 BF16) and the tiles of AMX, in a namespace of its own.
#pragma once

#define ISA_NAMESPACE amx

#include "simd/simd_avx512.h"
#include "simd/tiles_amx.h"

namespace qwick::amx {
namespace {

#ifdef QWICK_EMULATE
inline __m256i emulated_bf16(Vec v) {  // denormals become zeros, whatever MXCSR says
    const Ints sign = splat_ints(static_cast<int32_t>(0x80000000)), bits = bits_of(v);
    const __mmask16 tiny = _mm512_cmpgt_epi32_mask(splat_ints(0x800000), _mm512_andnot_si512(sign, bits));
    const Ints rounded = bits_of(round_bf16(v));
    return _mm512_cvtsepi32_epi16(shift_right_signed<16>(_mm512_mask_mov_epi32(rounded, tiny, both(bits, sign))));
}
#endif

// 2 kLanes values in order, to the nearest bf16, half to even.
inline Ints to_bf16(Vec low, Vec high) {
#ifdef QWICK_EMULATE
    return _mm512_inserti64x4(_mm512_castsi256_si512(emulated_bf16(low)), emulated_bf16(high), 1);
#else
    return reinterpret_cast<Ints>(_mm512_cvtne2ps_pbh(high, low));
#endif
}

// The same in pairs: lane i holds low's value i, then high's.
inline Ints to_bf16_pairs(Vec low, Vec high) {
    alignas(64) static constexpr uint16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                             21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                             11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(load_ints(kInterleave), to_bf16(low, high));
}

// A table of 16 or 32 floats at each lane's lowest 4 or 5 bits.
inline Vec look_up_16(Vec table, Ints index) {
    return _mm512_permutexvar_ps(index, table);
}
inline Vec look_up_32(Vec low, Vec high, Ints index) {
    return _mm512_permutex2var_ps(low, index, high);
}

}  // namespace
}  // namespace qwick::amx
