#include "encode/encode.h"

#include <cmath>
#include <cstring>

#include "codec/codec.h"
#include "codec/half.h"
#include "encode/encode_blocks.h"
#include "kernels.h"

namespace qwick {
namespace {

constexpr float kSmallestHalf = 0x1p-24f, kLargestHalf = 65504;

using BlockEncoder = void (*)(const float* x, uint8_t* block);

void encode_q8_0_block(const float* x, uint8_t* block) {
    int8_t quants[kQuantBlock];
    uint16_t scale;
    encode_q8_0(x, kQuantBlock, quants, &scale);
    std::memcpy(block, &scale, sizeof scale);
    std::memcpy(block + sizeof scale, quants, sizeof quants);
}

BlockEncoder block_encoder(BlockType type) {
    switch (type) {
        case BlockType::q4_0:
            return encode_q4_0_block;
        case BlockType::q8_0:
            return encode_q8_0_block;
        case BlockType::q4_k:
            return encode_q4_k_block;
        case BlockType::q5_k:
            return encode_q5_k_block;
        case BlockType::q6_k:
            return encode_q6_k_block;
        default:
            return nullptr;
    }
}

template <class Convert>
void encode_halves(const float* x, int64_t k, uint8_t* out, Convert convert) {
    for (int64_t i = 0; i < k; ++i) {
        const uint16_t bits = convert(x[i]);
        std::memcpy(out + 2 * i, &bits, sizeof bits);
    }
}

}  // namespace

Extent extent_of(const float* x, int64_t n, float reach) {
    bool finite = true;
    float largest = 0;
    for (int64_t i = 0; i < n; ++i) {
        const float magnitude = std::fabs(x[i]);
        finite &= (float_bits(x[i]) & 0x7f800000) != 0x7f800000;
        largest = magnitude > largest ? magnitude : largest;
    }
    if (!finite || largest > kLargestHalf * reach) return Extent::unstorable;
    return largest < kSmallestHalf / 2 ? Extent::zero : Extent::usual;
}

bool can_encode(BlockType type) {
    return type == BlockType::f32 || type == BlockType::f16 || type == BlockType::bf16 || block_encoder(type);
}

void encode_row(BlockType type, const float* x, int64_t k, uint8_t* blocks) {
    if (type == BlockType::f32) {
        std::memcpy(blocks, x, k * sizeof(float));
    } else if (type == BlockType::f16) {
        encode_halves(x, k, blocks, f32_to_f16);
    } else if (type == BlockType::bf16) {
        encode_halves(x, k, blocks, f32_to_bf16);
    } else if (const BlockEncoder encode = block_encoder(type)) {
        const BlockShape shape = block_shape(type);
        for (int64_t i = 0; i < k / shape.len; ++i) encode(x + i * shape.len, blocks + i * shape.bytes);
    }
}

}  // namespace qwick
