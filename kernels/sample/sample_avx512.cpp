#include "simd/simd_avx512.h"

#include "sample/sample_simd.h"  // written over the vector above
