#include "simd/simd_avx512.h"
// The vector first: what follows is written over it.
#include "simd/math_simd.h"
#include "attention/attention_simd.h"
