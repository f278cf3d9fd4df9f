#include "simd/simd_avx2.h"

#include "sample/sample_simd.h"  // written over the vector above
