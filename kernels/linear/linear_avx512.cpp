#include "simd/simd_avx512.h"

#include "linear/linear_simd.h"  // written over the vector above
