#include "simd/tiles_amx.h"
#include "tile_trial.h"

namespace qwick::amx {

void multiply_tiles(const uint16_t* a, const uint16_t* b, float* c) {
    const Tiles tiles;
    tile_load<0>(c, kTileRowBytes);
    tile_load<6>(a, kTileRowBytes);
    tile_load<7>(b, kTileRowBytes);
    tile_dot<0, 6, 7>();
    tile_store<0>(c, kTileRowBytes);
}

}  // namespace qwick::amx
