// f32 rows to blocks of a file format: what a quantised weight loses is decided here.
#pragma once

#include <cstdint>

#include "codec/block_type.h"

namespace qwick {

// Whether `encode_row` knows the format: f32, f16, bf16, q4_0, q8_0, q4_k, q5_k, q6_k.
bool can_encode(BlockType type);

// k values (a multiple of the block's length) into blocks, as a GGUF file holds them. Depends on the row alone. An
// infinite or NaN value poisons its block with a NaN scale instead of becoming a wrong number.
void encode_row(BlockType type, const float* x, int64_t k, uint8_t* blocks);

}  // namespace qwick
