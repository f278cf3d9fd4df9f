#include "simd/simd_avx512.h"

#include "codec/codec_simd.h"  // written over the vector above
