#include "simd/simd_avx2.h"

#include "norm/norm_simd.h"  // written over the vector above
