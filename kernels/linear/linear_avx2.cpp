#include "simd/simd_avx2.h"

#include "codec/block_codes_simd.h"

#include "linear/int_dot_simd.h"

#include "linear/linear_simd.h"  // written over the vector above
