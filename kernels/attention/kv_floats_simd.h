// Scores and weighted values over a block whose keys and values are stored as f32, f16 or bf16.
// Included by attention_simd.h.
#pragma once

#include "attention/prefetch_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// Tiles worked on at once: eight running sums keep two multipliers with a latency of four busy.
template <int R>
constexpr int kTilesTogether = R * kTileVecs > 4   ? 1
                               : R * kTileVecs > 2 ? 2
                                                   : 4;

// scores[r * kBlockLen + j] = query row r . key j for R rows and T tiles of keys.
template <int R, int T, class Stored>
inline void score_tiles(const float* query, const Stored* keys, int64_t head_dim, float* scores, const char* ahead) {
    constexpr int N = T * kTileVecs;
    constexpr int64_t kStepBytes = 2 * T * kTileKeys * sizeof(Stored);  // two dimensions: whole lines
    Vec sums[R][N];
    for (auto& of_row : sums) {
        for (Vec& sum : of_row) sum = zero();
    }
    for (int64_t d = 0; d < head_dim; d += 2) {
        prefetch<kStepBytes>(ahead + d / 2 * kStepBytes);
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            Vec key[N];
            for (int n = 0; n < N; ++n) {
                key[n] = load_stored(keys + (n / kTileVecs * head_dim + d + i) * kTileKeys + n % kTileVecs * kLanes);
            }
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                const Vec q = splat(query[r * head_dim + d + i]);
                for (int n = 0; n < N; ++n) sums[r][n] = fma(q, key[n], sums[r][n]);
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int n = 0; n < N; ++n) store(scores + r * kBlockLen + n * kLanes, sums[r][n]);
    }
}

// Of the first num_keys keys, and of whatever lies behind them up to a multiple of 16.
template <int R, class Stored>
void score_rows(const float* query, const Stored* keys, int64_t num_keys, int64_t head_dim, float* scores,
                const ReadAhead& read_ahead) {
    constexpr int T = kTilesTogether<R>;
    const int64_t tile = head_dim * kTileKeys;
    int64_t key = 0;
    for (; key + (T - 1) * kTileKeys < num_keys; key += T * kTileKeys) {
        const int64_t t = key / kTileKeys;
        score_tiles<R, T>(query, keys + t * tile, head_dim, scores + key, read_ahead.address_after(keys + t * tile));
    }
    for (; key < num_keys; key += kTileKeys) {
        const int64_t t = key / kTileKeys;
        score_tiles<R, 1>(query, keys + t * tile, head_dim, scores + key, read_ahead.address_after(keys + t * tile));
    }
}

// acc[r] = acc[r] * factors[r] + sum over j in [begin, end) of weights[r * kBlockLen + j] * value j, for T tiles of
// dimensions.
template <int R, int T, class Stored>
inline void value_tiles(const Stored* values, const float* weights, int64_t begin, int64_t end, int64_t head_dim,
                        const float* factors, float* acc, const char* ahead) {
    constexpr int N = T * kTileVecs;
    constexpr int64_t kStepBytes = 2 * T * kTileDims * sizeof(Stored);  // two keys: whole lines
    Vec sums[R][N];
    for (int r = 0; r < R; ++r) {
        for (int n = 0; n < N; ++n) sums[r][n] = mul(load(acc + r * head_dim + n * kLanes), splat(factors[r]));
    }
    for (int64_t j = begin; j < end; ++j) {
        if (j % 2 == 0) prefetch<kStepBytes>(ahead + j / 2 * kStepBytes);
        Vec value[N];
        for (int n = 0; n < N; ++n) {
            value[n] = load_stored(values + (n / kTileVecs * kBlockLen + j) * kTileDims + n % kTileVecs * kLanes);
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const Vec weight = splat(weights[r * kBlockLen + j]);
            for (int n = 0; n < N; ++n) sums[r][n] = fma(weight, value[n], sums[r][n]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int n = 0; n < N; ++n) store(acc + r * head_dim + n * kLanes, sums[r][n]);
    }
}

template <int R, class Stored>
void add_values(const Stored* values, const float* weights, int64_t begin, int64_t end, int64_t head_dim,
                const float* factors, float* acc, const ReadAhead& read_ahead) {
    constexpr int T = kTilesTogether<R>;
    constexpr int64_t kTile = kBlockLen * kTileDims;
    const int64_t num_tiles = head_dim / kTileDims;
    int64_t t = 0;
    for (; t + T <= num_tiles; t += T) {
        value_tiles<R, T>(values + t * kTile, weights, begin, end, head_dim, factors, acc + t * kTileDims,
                          read_ahead.address_after(values + t * kTile));
    }
    for (; t < num_tiles; ++t) {
        value_tiles<R, 1>(values + t * kTile, weights, begin, end, head_dim, factors, acc + t * kTileDims,
                          read_ahead.address_after(values + t * kTile));
    }
}

// Rows may see different numbers of keys: together over those that all see, then each over its rest, for a weight of
// zero would not silence a NaN.
template <int R, class Stored>
void add_visible(const Stored* values, const float* weights, const int32_t* visible, int64_t head_dim,
                 const float* factors, float* acc, const ReadAhead& read_ahead) {
    int64_t shared = visible[0];
    for (int r = 1; r < R; ++r) shared = visible[r] < shared ? visible[r] : shared;
    add_values<R>(values, weights, 0, shared, head_dim, factors, acc, read_ahead);
    const float one = 1;
    for (int r = 0; r < R; ++r) {
        if (visible[r] == shared) continue;
        add_values<1>(values, weights + r * kBlockLen, shared, visible[r], head_dim, &one, acc + r * head_dim,
                      read_ahead);
    }
}

template <int R, class Stored>
int64_t piece_bytes(const Stored*) {
    return kTilesTogether<R> * kBlockLen * kTileDims * static_cast<int64_t>(sizeof(Stored));
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
