// Keys and values of each format: stored, scored and weighted. Definitions, for attention_scalar.cpp.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "attention/kv_block.h"
#include "codec/half.h"

namespace qwick::scalar {
namespace {

// --- f32, f16, bf16: a score is one chain over head_dim, an output one chain over the keys

struct F16 {
    uint16_t bits;
};
struct Bf16 {
    uint16_t bits;
};
struct Q8Groups;  // q8_0

KvFormat format_of(const float*) {
    return KvFormat::f32;
}
KvFormat format_of(const F16*) {
    return KvFormat::f16;
}
KvFormat format_of(const Bf16*) {
    return KvFormat::bf16;
}
KvFormat format_of(const Q8Groups*) {
    return KvFormat::q8_0;
}

float value_of(float x) {
    return x;
}
float value_of(F16 x) {
    return f16_to_f32(x.bits);
}
float value_of(Bf16 x) {
    return bf16_to_f32(x.bits);
}
void round_to(float x, float& out) {
    out = x;
}
void round_to(float x, F16& out) {
    out.bits = f32_to_f16(x);
}
void round_to(float x, Bf16& out) {
    out.bits = f32_to_bf16(x);
}

template <class Stored>
void load_query(const float* x, int64_t head_dim, float scale, float* out) {
    for (int64_t d = 0; d < head_dim; ++d) out[d] = x[d] * scale;
}

template <class Stored>
void store_key(const float* x, int64_t head_dim, int64_t key, void* keys) {
    for (int64_t d = 0; d < head_dim; ++d) round_to(x[d], static_cast<Stored*>(keys)[key_at(key, d, head_dim)]);
}

template <class Stored>
void store_value(const float* x, int64_t head_dim, int64_t key, void* values) {
    for (int64_t d = 0; d < head_dim; ++d) round_to(x[d], static_cast<Stored*>(values)[value_at(key, d)]);
}

template <class Stored>
void scores_of(const float* query, const Stored* keys, int64_t num_keys, int64_t head_dim, float* scores) {
    for (int64_t j = 0; j < num_keys; ++j) {
        scores[j] = 0;
        for (int64_t d = 0; d < head_dim; ++d) {
            scores[j] = std::fma(query[d], value_of(keys[key_at(j, d, head_dim)]), scores[j]);
        }
    }
}

template <class Stored>
void add_values(const float* weights, const Stored* values, int64_t num_keys, int64_t head_dim, float* acc) {
    for (int64_t d = 0; d < head_dim; ++d) {
        for (int64_t j = 0; j < num_keys; ++j) acc[d] = std::fma(weights[j], value_of(values[value_at(j, d)]), acc[d]);
    }
}

// --- q8_0: products are integers, exact; one chain of f32 over the groups of a score, one over the blocks of an output

// Infinite or a NaN as soon as one of the values is.
float largest_of(const float* x, int64_t n) {
    float largest = 0, strays = 0;
    for (int64_t i = 0; i < n; ++i) {
        largest = std::fmax(largest, std::fabs(x[i]));
        strays += x[i] - x[i];
    }
    return largest + strays;
}

int nearest(float x, float limit) {
    return static_cast<int>(std::lrint(std::fmin(std::fmax(x, -limit), limit)));
}

// d = amax / 127 in f16, codes the nearest multiples of that d: 0 where d is, anything where d is no number.
uint16_t quantize_group(const float* x, int8_t* codes) {
    const uint16_t scale = f32_to_f16(largest_of(x, kKvGroup) / 127);
    const float d = f16_to_f32(scale);
    for (int64_t i = 0; i < kKvGroup; ++i) {
        codes[i] = d > 0 && d <= FLT_MAX ? static_cast<int8_t>(nearest(x[i] / d, 127)) : int8_t{0};
    }
    return scale;
}

// int16 with one scale, amax / 32767: too fine to be seen beside eight bits. Nothing where that would be subnormal.
float quantize_words(const float* x, int64_t n, int16_t* words) {
    const float largest = largest_of(x, n), inverse = kLargestWord / largest;
    const bool usable = largest >= kSmallestWords && largest <= FLT_MAX;
    for (int64_t i = 0; i < n; ++i) {
        words[i] = usable ? static_cast<int16_t>(nearest(x[i] * inverse, kLargestWord)) : int16_t{0};
    }
    return largest < kSmallestWords ? 0 : largest / kLargestWord;
}

template <>
void load_query<Q8Groups>(const float* x, int64_t head_dim, float scale, float* out) {
    auto* words = reinterpret_cast<int16_t*>(out);
    out[head_dim / 2] = quantize_words(x, head_dim, words) * scale;
}

template <>
void store_key<Q8Groups>(const float* x, int64_t head_dim, int64_t key, void* keys) {
    for (int64_t g = 0; g < head_dim / kKvGroup; ++g) {
        KeyGroup& group = static_cast<KeyGroup*>(keys)[key / kTileKeys * (head_dim / kKvGroup) + g];
        int8_t codes[kKvGroup];
        group.scales[key % kTileKeys] = quantize_group(x + g * kKvGroup, codes);
        for (int64_t i = 0; i < kKvGroup; ++i) group.codes[i / 2][key % kTileKeys][i % 2] = codes[i];
    }
}

template <>
void store_value<Q8Groups>(const float* x, int64_t head_dim, int64_t key, void* values) {
    for (int64_t g = 0; g < head_dim / kKvGroup; ++g) {
        ValueGroup& group = static_cast<ValueGroup*>(values)[g];
        int8_t codes[kKvGroup];
        group.scales[key] = quantize_group(x + g * kKvGroup, codes);
        for (int64_t i = 0; i < kKvGroup; ++i) {
            group.codes[i / kTileDims][key / 2][i % kTileDims][key % 2] = codes[i];
        }
    }
}

void scores_of(const float* query, const Q8Groups* keys, int64_t num_keys, int64_t head_dim, float* scores) {
    const auto* words = reinterpret_cast<const int16_t*>(query);
    const int64_t num_groups = head_dim / kKvGroup;
    for (int64_t j = 0; j < num_keys; ++j) {
        const KeyGroup* groups = reinterpret_cast<const KeyGroup*>(keys) + j / kTileKeys * num_groups;
        float score = 0;
        for (int64_t g = 0; g < num_groups; ++g) {
            int32_t sum = 0;
            for (int64_t i = 0; i < kKvGroup; ++i) {
                sum += words[g * kKvGroup + i] * groups[g].codes[i / 2][j % kTileKeys][i % 2];
            }
            score = std::fma(static_cast<float>(sum), f16_to_f32(groups[g].scales[j % kTileKeys]), score);
        }
        scores[j] = score * query[head_dim / 2];
    }
}

// The scale of each value goes into its weight, and those become words.
void add_values(const float* weights, const Q8Groups* values, int64_t num_keys, int64_t head_dim, float* acc) {
    for (int64_t g = 0; g < head_dim / kKvGroup; ++g) {
        const ValueGroup& group = reinterpret_cast<const ValueGroup*>(values)[g];
        float scaled[kBlockLen];
        int16_t words[kBlockLen];
        for (int64_t j = 0; j < num_keys; ++j) scaled[j] = weights[j] * f16_to_f32(group.scales[j]);
        const float d = quantize_words(scaled, num_keys, words);
        for (int64_t i = 0; i < kKvGroup; ++i) {
            int32_t sum = 0;
            for (int64_t j = 0; j < num_keys; ++j) {
                sum += words[j] * group.codes[i / kTileDims][j / 2][i % kTileDims][j % 2];
            }
            acc[g * kKvGroup + i] = std::fma(static_cast<float>(sum), d, acc[g * kKvGroup + i]);
        }
    }
}

}  // namespace
}  // namespace qwick::scalar
