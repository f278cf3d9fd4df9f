#include "simd/simd_avx_vnni.h"

#include "codec/block_codes_simd.h"

#include "linear/int_dot_vnni_simd.h"

#include "linear/linear_vnni_simd.h"  // written over the vector above
