#include "simd/simd_avx512.h"

#include "attention/attention_simd.h"  // written over the vector above
