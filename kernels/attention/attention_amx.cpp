#define ISA_NAMESPACE amx
#include "simd/simd_avx512.h"
#include "simd/tiles_amx.h"

#include "attention/prompt_tiles_amx.h"  // written over the tiles above
