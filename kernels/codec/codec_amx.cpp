#include "simd/simd_amx.h"

#include "codec/bf16_panels_amx.h"  // written over the vector above
