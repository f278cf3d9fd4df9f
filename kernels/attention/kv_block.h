// How 64 keys and values of one kv head lie in memory: one layout for every instruction set.
//
//   f32, f16, bf16   keys   [64 / 16][head_dim][16 keys]        one line holds two dimensions of 16 keys (f16)
//                    values [head_dim / 16][64][16 dims]
//   q8_0             keys   [64 / 16][head_dim / 32] KeyGroup
//                    values [head_dim / 32] ValueGroup
//
// Keys lie across the lanes, so a score is one lane's sum over head_dim: a query is broadcast value by value, and
// nothing ever crosses lanes. Values are read 16 dimensions at a time, key after key. Both are read front to back.
// Values lie right behind their keys. q8_0 is one f16 scale per 32 values of a row, as GGUF's; neighbours (two
// dimensions of a key, two keys of a dimension) lie side by side for instructions that add two products.
#pragma once

#include "kernels.h"

namespace qwick {

constexpr int64_t kBlockLen = 64;  // keys per online-softmax step
constexpr int64_t kTileKeys = 16;
constexpr int64_t kTileDims = 16;
constexpr int64_t kKvGroup = 32;  // values of a row that share a scale
constexpr int64_t kGroupPairs = kKvGroup / 2;
constexpr int64_t kKeyPairs = kBlockLen / 2;
constexpr int64_t kMostPromptDims = 256;  // of a head, for the leaves of prompt rows

struct KeyGroup {  // 32 dimensions of 16 keys
    uint16_t scales[kTileKeys];
    int8_t codes[kGroupPairs][kTileKeys][2];  // [pair of dims][key][dim]
};

struct ValueGroup {  // 32 dimensions of 64 keys
    uint16_t scales[kBlockLen];
    int8_t codes[kKvGroup / kTileDims][kKeyPairs][kTileDims][2];  // [half of dims][pair of keys][dim][key]
};

// Bytes of the keys of a block, and of the values: head_dim a multiple of 16, for q8_0 of 32.
QWICK_INLINE int64_t kv_block_bytes(KvFormat format, int64_t head_dim) {
    if (format == KvFormat::q8_0) return head_dim / kKvGroup * static_cast<int64_t>(sizeof(ValueGroup));
    return kBlockLen * head_dim * (format == KvFormat::f32 ? 4 : 2);
}
static_assert(sizeof(ValueGroup) == kBlockLen / kTileKeys * sizeof(KeyGroup), "keys and values weigh the same");

// q8_0: queries and weights meet the codes as int16, |x| up to this.
constexpr float kLargestWord = 32767;
constexpr float kSmallestWords = 1e-33f;  // a largest value below would give a subnormal scale

// Index of a value in a block of f32, f16 or bf16.
QWICK_INLINE int64_t key_at(int64_t key, int64_t dim, int64_t head_dim) {
    return (key / kTileKeys * head_dim + dim) * kTileKeys + key % kTileKeys;
}
QWICK_INLINE int64_t value_at(int64_t key, int64_t dim) {
    return (dim / kTileDims * kBlockLen + key) * kTileDims + dim % kTileDims;
}

}  // namespace qwick
