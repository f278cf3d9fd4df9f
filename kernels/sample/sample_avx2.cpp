#include "simd/simd_avx2.h"
// The vector first: what follows is written over it.
#include "simd/math_simd.h"
#include "sample/sample_simd.h"
