#include "simd/simd_avx512.h"

#include "elementwise/elementwise_simd.h"  // written over the vector above
