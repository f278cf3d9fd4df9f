#include "simd/simd_avx512.h"
// The vector first: what follows is written over it.
#include "simd/math_simd.h"
#include "gated_delta/gated_delta_simd.h"
