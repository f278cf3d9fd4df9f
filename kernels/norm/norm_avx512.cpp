#include "simd/simd_avx512.h"

#include "norm/norm_simd.h"  // written over the vector above
