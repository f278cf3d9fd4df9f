#include "simd/simd_avx2.h"

#include "attention/attention_simd.h"  // written over the vector above
