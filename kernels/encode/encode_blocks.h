// One block of each format. Layouts: ggml-common.h (block_q4_0, block_q4_K, ...).
#pragma once

#include <cstdint>

namespace qwick {

constexpr uint16_t kPoison = 0x7e00;  // a scale that makes every value of its block NaN

// What a block's values allow: nothing but zeros (also: too small for any f16 scale), some usual choice of scales, or
// no scale at all (an infinity or a NaN among them, or values beyond `reach` times the largest f16, whose scale might
// become infinite).
enum class Extent { zero, usual, unstorable };

Extent extent_of(const float* x, int64_t n, float reach);

void encode_q4_0_block(const float* x, uint8_t* block);  // 32 values, 18 bytes
void encode_q4_k_block(const float* x, uint8_t* block);  // 256 values, 144 bytes
void encode_q5_k_block(const float* x, uint8_t* block);  // 256 values, 176 bytes
void encode_q6_k_block(const float* x, uint8_t* block);  // 256 values, 210 bytes

}  // namespace qwick
