#include "simd/simd_avx512.h"

#include "causal_conv/causal_conv_simd.h"  // written over the vector above
