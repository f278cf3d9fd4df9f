// Encoding of weight rows on their way into the arena.
#pragma once

#include <cstdint>

namespace qwick {

// d = amax / 127 stored as f16, q = round half away(x * (1 / d)): llama.cpp's quantize_row_q8_0_ref, bit for bit for
// finite rows. An infinite or NaN value poisons its block's scale with NaN instead of becoming a wrong number. k % 32
// == 0.
void encode_q8_0(const float* x, int64_t k, int8_t* quants, uint16_t* scales);

void encode_bf16(const float* x, int64_t n, uint16_t* out);  // nearest even
void decode_bf16(const uint16_t* x, int64_t n, float* out);

}  // namespace qwick
