// Scores and weighted values over a block of q8_0 keys and values, and the way into it. Included by attention_simd.h.
//
// Queries and weights are rounded to int16, so products are integers, two added by one instruction, and exact; see
// kv_scalar.h for the definition.
#pragma once

#include "attention/prefetch_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

struct Q8Groups;  // KeyGroup or ValueGroup

constexpr int64_t kGroupStep = 4 * kTileKeys;  // bytes of two pairs: a line

inline void clear_words(int16_t* words, int64_t n) {
    for (int64_t i = 0; i < n; ++i) words[i] = 0;
}

inline float quantize_words(const float* x, int64_t n, int16_t* words) {
    const float largest = largest_or_nan(x, n);
    if (!(largest >= kSmallestWords && largest <= __FLT_MAX__)) {
        clear_words(words, n);
        return largest < kSmallestWords ? 0 : largest / kLargestWord;
    }
    const Vec inverse = splat(kLargestWord / largest);
    for (int64_t i = 0; i < n; i += kLanes) store_i16(words + i, mul(load(x + i), inverse));
    return largest / kLargestWord;
}

inline int32_t two_words(const int16_t* words) {
    int32_t both;
    __builtin_memcpy(&both, words, sizeof both);
    return both;
}

// scores[r * kBlockLen + j] of R rows and a tile of keys.
template <int R>
inline void score_tile(const float* query, const KeyGroup* groups, int64_t head_dim, float* scores, const char* ahead) {
    alignas(64) Vec totals[R][kTileVecs];
    for (auto& of_row : totals) {
        for (Vec& total : of_row) total = zero();
    }
    for (int64_t g = 0; g < head_dim / kKvGroup; ++g, ahead += sizeof(KeyGroup)) {
        Ints sums[R][kTileVecs];
        for (auto& of_row : sums) {
            for (Ints& sum : of_row) sum = splat_ints(0);
        }
        __builtin_prefetch(ahead + kGroupPairs / 2 * kGroupStep);
        for (int64_t p = 0; p < kGroupPairs; p += 2) {
            __builtin_prefetch(ahead + p / 2 * kGroupStep);
#pragma GCC unroll 2
            for (int64_t i = p; i < p + 2; ++i) {
                Ints key[kTileVecs];
                for (int v = 0; v < kTileVecs; ++v) key[v] = load_signed_pairs(groups[g].codes[i][v * kLanes]);
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    const auto* words = reinterpret_cast<const int16_t*>(query + r * head_dim) + g * kKvGroup;
                    const Ints q = splat_ints(two_words(words + 2 * i));
                    for (int v = 0; v < kTileVecs; ++v) sums[r][v] = add_ints(sums[r][v], dot_pairs(key[v], q));
                }
            }
        }
        for (int v = 0; v < kTileVecs; ++v) {
            const Vec scale = load_f16(groups[g].scales + v * kLanes);
            for (int r = 0; r < R; ++r) totals[r][v] = fma(to_floats(sums[r][v]), scale, totals[r][v]);
        }
    }
    for (int r = 0; r < R; ++r) {
        const Vec d = splat(query[r * head_dim + head_dim / 2]);
        for (int v = 0; v < kTileVecs; ++v) store(scores + r * kBlockLen + v * kLanes, mul(totals[r][v], d));
    }
}

template <int R>
void score_rows(const float* query, const Q8Groups* keys, int64_t num_keys, int64_t head_dim, float* scores,
                const ReadAhead& read_ahead) {
    const auto* groups = reinterpret_cast<const KeyGroup*>(keys);
    const int64_t tile = head_dim / kKvGroup;
    for (int64_t t = 0; t * kTileKeys < num_keys; ++t) {
        score_tile<R>(query, groups + t * tile, head_dim, scores + t * kTileKeys,
                      read_ahead.address_after(groups + t * tile));
    }
}

// acc[r] = acc[r] * factors[r] + d[r] * sum over pairs of keys of words * codes, for 32 dimensions.
template <int R>
inline void value_group(const ValueGroup& group, const int16_t (*words)[kBlockLen], const float* d, int64_t num_pairs,
                        int64_t head_dim, const float* factors, float* acc, const char* ahead) {
    for (int64_t half = 0; half < kKvGroup / kTileDims; ++half) {
        Ints sums[R][kTileVecs];
        for (auto& of_row : sums) {
            for (Ints& sum : of_row) sum = splat_ints(0);
        }
        __builtin_prefetch(ahead + (kKeyPairs + half) * kGroupStep);
        for (int64_t p = 0; p < num_pairs; ++p) {
            if (p % 2 == 0) __builtin_prefetch(ahead + (half * kKeyPairs + p) / 2 * kGroupStep);
            Ints value[kTileVecs];
            for (int v = 0; v < kTileVecs; ++v) value[v] = load_signed_pairs(group.codes[half][p][v * kLanes]);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                const Ints weight = splat_ints(two_words(words[r] + 2 * p));
                for (int v = 0; v < kTileVecs; ++v) sums[r][v] = add_ints(sums[r][v], dot_pairs(value[v], weight));
            }
        }
        for (int r = 0; r < R; ++r) {
            for (int v = 0; v < kTileVecs; ++v) {
                float* out = acc + r * head_dim + half * kTileDims + v * kLanes;
                const Vec before = mul(load(out), splat(factors[r]));
                store(out, fma(to_floats(sums[r][v]), splat(d[r]), before));
            }
        }
    }
}

// The scale of each value goes into its weight; of values out of sight both are left out, so they may hold anything.
template <int R>
void add_visible(const Q8Groups* values, const float* weights, const int32_t* visible, int64_t head_dim,
                 const float* factors, float* acc, const ReadAhead& read_ahead) {
    int64_t most = visible[0];
    for (int r = 1; r < R; ++r) most = visible[r] > most ? visible[r] : most;
    const auto* groups = reinterpret_cast<const ValueGroup*>(values);
    for (int64_t g = 0; g < head_dim / kKvGroup; ++g) {
        alignas(64) float scaled[kBlockLen];
        alignas(64) int16_t words[R][kBlockLen];
        float d[R];
        for (int r = 0; r < R; ++r) {
            for (int64_t j = 0; j < kBlockLen; j += kLanes) {
                const Vec product = mul(load(weights + r * kBlockLen + j), load_f16(groups[g].scales + j));
                store(scaled + j, product);
            }
            for (int64_t j = visible[r]; j < kBlockLen; ++j) scaled[j] = 0;
            d[r] = quantize_words(scaled, kBlockLen, words[r]);
        }
        value_group<R>(groups[g], words, d, (most + 1) / 2, head_dim, factors, acc + g * kKvGroup,
                       read_ahead.address_after(groups + g));
    }
}

template <int R>
int64_t piece_bytes(const Q8Groups*) {
    return sizeof(ValueGroup);
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
