#include "simd/simd_amx.h"

#include "attention/prompt_tiles_amx.h"  // written over the tiles above
