// Keys and values on their way into a block. Included after simd_<isa>.h.
//
// A key's dimensions lie one line apart from each other (kv_block.h): rows are rounded by vectors, then dealt out.
#pragma once

#include "attention/kv_q8_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// 16 values as they are stored.
inline void round_tile(const float* x, float* out) {
    __builtin_memcpy(out, x, kTileDims * sizeof(float));
}
inline void round_tile(const float* x, F16* out) {
    for (int64_t i = 0; i < kTileDims; i += kLanes) store_f16(&out[i].bits, load(x + i));
}
inline void round_tile(const float* x, Bf16* out) {
    alignas(64) uint32_t bits[kTileDims];
    for (int64_t i = 0; i < kTileDims; i += kLanes) store(reinterpret_cast<float*>(bits + i), round_bf16(load(x + i)));
    for (int64_t i = 0; i < kTileDims; ++i) out[i].bits = static_cast<uint16_t>(bits[i] >> 16);
}

template <class Stored>
void store_key(const float* x, int64_t head_dim, int64_t key, void* keys) {
    for (int64_t dim = 0; dim < head_dim; dim += kTileDims) {
        Stored tile[kTileDims];
        round_tile(x + dim, tile);
        Stored* out = static_cast<Stored*>(keys) + key_at(key, dim, head_dim);
        for (int64_t i = 0; i < kTileDims; ++i) out[i * kTileKeys] = tile[i];
    }
}

template <class Stored>
void store_value(const float* x, int64_t head_dim, int64_t key, void* values) {
    for (int64_t dim = 0; dim < head_dim; dim += kTileDims) {
        round_tile(x + dim, static_cast<Stored*>(values) + value_at(key, dim));
    }
}

template <class Stored>
void load_query(const float* x, int64_t head_dim, float scale, float* out) {
    for (int64_t i = 0; i < head_dim; i += kLanes) store(out + i, mul(load(x + i), splat(scale)));
}

// --- q8_0

// The nearest multiples of d = amax / 127 in f16; zeros where d is 0 or no number.
inline uint16_t quantize_group(const float* x, int8_t* codes) {
    alignas(64) float scale[kLanes];
    uint16_t bits[kLanes];
    store_f16(bits, splat(largest_or_nan(x, kKvGroup) / 127));
    store(scale, load_f16(bits));
    const bool usable = scale[0] > 0 && scale[0] <= __FLT_MAX__;
    for (int64_t i = 0; i < kKvGroup; i += kLanes) {
        const Vec q = usable ? div(load(x + i), splat(scale[0])) : zero();
        store_i8(codes + i, min(max(q, splat(-127)), splat(127)));
    }
    return bits[0];
}

template <>
inline void store_key<Q8Groups>(const float* x, int64_t head_dim, int64_t key, void* keys) {
    const int64_t num_groups = head_dim / kKvGroup;
    KeyGroup* group = static_cast<KeyGroup*>(keys) + key / kTileKeys * num_groups;
    for (int64_t g = 0; g < num_groups; ++g, ++group) {
        int8_t codes[kKvGroup];
        group->scales[key % kTileKeys] = quantize_group(x + g * kKvGroup, codes);
        for (int64_t i = 0; i < kKvGroup; ++i) group->codes[i / 2][key % kTileKeys][i % 2] = codes[i];
    }
}

template <>
inline void store_value<Q8Groups>(const float* x, int64_t head_dim, int64_t key, void* values) {
    for (int64_t g = 0; g < head_dim / kKvGroup; ++g) {
        ValueGroup& group = static_cast<ValueGroup*>(values)[g];
        int8_t codes[kKvGroup];
        group.scales[key] = quantize_group(x + g * kKvGroup, codes);
        for (int64_t i = 0; i < kKvGroup; ++i) {
            group.codes[i / kTileDims][key / 2][i % kTileDims][key % 2] = codes[i];
        }
    }
}

template <>
inline void load_query<Q8Groups>(const float* x, int64_t head_dim, float scale, float* out) {
    out[head_dim / 2] = quantize_words(x, head_dim, reinterpret_cast<int16_t*>(out)) * scale;
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
