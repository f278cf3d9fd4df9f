#include "simd/simd_avx2.h"

#include "elementwise/elementwise_simd.h"  // written over the vector above
