#include "simd/simd_avx2.h"

#include "gated_delta/gated_delta_simd.h"  // written over the vector above
