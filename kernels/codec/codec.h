// Weight rows on their way from files into the arena, and back for whoever wants to look.
#pragma once

#include <cstdint>

#include "codec/block_type.h"
#include "kernels.h"

namespace qwick {

// d = amax / 127 stored as f16, q = round half away(x * (1 / d)): llama.cpp's quantize_row_q8_0_ref, bit for bit for
// finite rows. An infinite or NaN value poisons its block's scale with NaN instead of becoming a wrong number. k % 32
// == 0.
void encode_q8_0(const float* x, int64_t k, int8_t* quants, uint16_t* scales);

// The family that holds a format without loss, and the format that f32 rows are encoded to for a family.
Family family_of(BlockType type);
BlockType block_type_of(Family family);

// k values of a row as a file holds them, exactly. Any format; no alignment is needed.
void decode_file_row(BlockType type, const uint8_t* row, int64_t k, float* out);

// Rows [first, first + count) of one tile, from blocks of a format whose family is w's; `tile` is where it begins.
void regroup(BlockType type, const uint8_t* rows, const Weight& w, int64_t first, int64_t count, uint8_t* tile);

// A row of a weight in memory, exactly.
void decode_memory_row(const Weight& w, int64_t row, float* out);

int64_t file_row_bytes(BlockType type, int64_t k);
int64_t memory_bytes(Family family, int64_t rows, int64_t cols);  // blocks: rows filled up to whole tiles
const uint8_t* tile_of(const Weight& w, int64_t row);             // where the tile of a row begins

}  // namespace qwick
