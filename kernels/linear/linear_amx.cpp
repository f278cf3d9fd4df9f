#include "simd/simd_amx.h"

#include "linear/tile_products_amx.h"  // written over the tiles above
