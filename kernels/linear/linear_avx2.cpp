#include "simd/simd_avx2.h"
// The vector first: what follows is written over it.
#include "simd/math_simd.h"
#include "linear/linear_simd.h"
