#include "simd/simd_avx2.h"

#include "codec/codec_simd.h"  // written over the vector above
