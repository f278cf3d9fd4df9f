#include "simd/simd_avx2.h"

#include "linear/linear_simd.h"  // written over the vector above
