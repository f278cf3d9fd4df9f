// The formats in which files hold weights, by the numbers that GGUF gives them (ggml.h, enum ggml_type). The Python
// side of this table is formats.py.
#pragma once

#include <cstdint>

namespace qwick {

enum class BlockType : int32_t {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q4_1 = 3,
    q5_0 = 6,
    q5_1 = 7,
    q8_0 = 8,
    q2_k = 10,
    q3_k = 11,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    iq4_nl = 20,
    iq4_xs = 23,
    bf16 = 30,
    mxfp4 = 39,
};

constexpr BlockType kBlockTypes[] = {
    BlockType::f32,  BlockType::f16,    BlockType::bf16,   BlockType::q4_0,  BlockType::q4_1, BlockType::q5_0,
    BlockType::q5_1, BlockType::q8_0,   BlockType::q2_k,   BlockType::q3_k,  BlockType::q4_k, BlockType::q5_k,
    BlockType::q6_k, BlockType::iq4_nl, BlockType::iq4_xs, BlockType::mxfp4,
};

struct BlockShape {
    int64_t len, bytes;  // values and bytes of one block
};

// {0, 0} for a number that is none of the above.
constexpr BlockShape block_shape(BlockType type) {
    switch (type) {
        case BlockType::f32:
            return {1, 4};
        case BlockType::f16:
            return {1, 2};
        case BlockType::bf16:
            return {1, 2};
        case BlockType::q4_0:
            return {32, 18};
        case BlockType::q4_1:
            return {32, 20};
        case BlockType::q5_0:
            return {32, 22};
        case BlockType::q5_1:
            return {32, 24};
        case BlockType::q8_0:
            return {32, 34};
        case BlockType::q2_k:
            return {256, 84};
        case BlockType::q3_k:
            return {256, 110};
        case BlockType::q4_k:
            return {256, 144};
        case BlockType::q5_k:
            return {256, 176};
        case BlockType::q6_k:
            return {256, 210};
        case BlockType::iq4_nl:
            return {32, 18};
        case BlockType::iq4_xs:
            return {256, 136};
        case BlockType::mxfp4:
            return {32, 17};
    }
    return {0, 0};
}

}  // namespace qwick
