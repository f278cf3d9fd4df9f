// The rows of a prompt over a block of f32, f16 or bf16. Included by attention_simd.h.
//
// Each tile of keys and of values is widened to f32 once, into the nearest cache, and all rows go over it, as many at a
// time as the registers hold. A row's chains are those of kv_floats_simd.h.
#pragma once

#include "attention/prefetch_simd.h"
#include "attention/weigh_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int64_t kManyRows = 16;  // fewer gain nothing
constexpr int64_t kMostRows = 96;
constexpr int64_t kMostDims = 256;

template <class Stored>
inline void widen(const Stored* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; i += kLanes) store(to + i, load_stored(from + i));
}

// f(Count<R>, first) for all rows, as many at a time as stay in registers.
template <int R>
struct Count {
    static constexpr int value = R;
};
template <int R, class F>
inline void call_with(int64_t count, int64_t first, F& f) {
    if (count == R) return f(Count<R>{}, first);
    if constexpr (R > 1) call_with<R - 1>(count, first, f);
}
template <class F>
inline void for_row_groups(int64_t count, F&& f) {
    for (int64_t first = 0; first < count; first += kPanelRows) {
        call_with<kPanelRows>(count - first < kPanelRows ? count - first : kPanelRows, first, f);
    }
}

// Of what lies ahead, the share that the group of rows from `first` on fetches.
inline void prefetch_share(const char* p, int64_t lines, int64_t first) {
    for (int64_t i = 0; i < lines; ++i) __builtin_prefetch(p + (first / kPanelRows * lines + i) * kLine);
}

// scores[r * kBlockLen + j] of a widened tile of keys.
template <int R>
inline void score_widened(const float* query, const float* keys, int64_t head_dim, float* scores) {
    Vec sums[R][kTileVecs];
    for (auto& of_row : sums) {
        for (Vec& sum : of_row) sum = zero();
    }
#pragma GCC unroll 2
    for (int64_t d = 0; d < head_dim; ++d) {
        Vec key[kTileVecs];
        for (int n = 0; n < kTileVecs; ++n) key[n] = load(keys + d * kTileKeys + n * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Vec q = splat(query[r * head_dim + d]);
            for (int n = 0; n < kTileVecs; ++n) sums[r][n] = fma(q, key[n], sums[r][n]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int n = 0; n < kTileVecs; ++n) store(scores + r * kBlockLen + n * kLanes, sums[r][n]);
    }
}

// acc[r] = acc[r] * factors[r] + sum over j in [begin, end) of weights[r * kBlockLen + j] * value j, for a widened tile
// of dimensions.
template <int R>
inline void add_widened(const float* values, const float* weights, int64_t begin, int64_t end, int64_t head_dim,
                        const float* factors, float* acc) {
    Vec sums[R][kTileVecs];
    for (int r = 0; r < R; ++r) {
        for (int n = 0; n < kTileVecs; ++n) {
            sums[r][n] = mul(load(acc + r * head_dim + n * kLanes), splat(factors[r]));
        }
    }
#pragma GCC unroll 2
    for (int64_t j = begin; j < end; ++j) {
        Vec value[kTileVecs];
        for (int n = 0; n < kTileVecs; ++n) value[n] = load(values + j * kTileDims + n * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Vec weight = splat(weights[r * kBlockLen + j]);
            for (int n = 0; n < kTileVecs; ++n) sums[r][n] = fma(weight, value[n], sums[r][n]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int n = 0; n < kTileVecs; ++n) store(acc + r * head_dim + n * kLanes, sums[r][n]);
    }
}

// Together over the keys that all rows see, then each over its rest: a weight of zero would not silence a NaN.
template <int R>
inline void add_visible_widened(const float* values, const float* weights, const int32_t* visible, int64_t head_dim,
                                const float* factors, float* acc) {
    int64_t shared = visible[0];
    for (int r = 1; r < R; ++r) shared = visible[r] < shared ? visible[r] : shared;
    add_widened<R>(values, weights, 0, shared, head_dim, factors, acc);
    const float one = 1;
    for (int r = 0; r < R; ++r) {
        if (visible[r] == shared) continue;
        add_widened<1>(values, weights + r * kBlockLen, shared, visible[r], head_dim, &one, acc + r * head_dim);
    }
}

// Rows [r, r + count), each of which sees at least one key; count <= kMostRows, head_dim <= kMostDims. While a tile is
// worked on, as many bytes as a tile of keys has are fetched that far ahead.
template <class Stored>
void attend_many_rows(const AttendRows& rows, int64_t r, int64_t count, const KvBlock& block) {
    alignas(64) float widened[kTileKeys * kMostDims];
    alignas(64) float scores[kMostRows * kBlockLen];
    float corrections[kMostRows];
    const int64_t dim = rows.head_dim, tile = kTileKeys * dim, value_tile = kBlockLen * kTileDims;
    const int32_t* visible = rows.visible + r;
    const float* query = rows.query + r * dim;
    float* acc = rows.acc + r * dim;
    int64_t most = 0, least = kBlockLen;
    for (int64_t i = 0; i < count; ++i) {
        most = visible[i] > most ? visible[i] : most;
        least = visible[i] < least ? visible[i] : least;
    }
    const auto* keys = static_cast<const Stored*>(block.data);
    const Stored* values = keys + kBlockLen * dim;
    const auto ahead = read_ahead_of(block, kBlockLen * dim * sizeof(Stored), tile * sizeof(Stored), false);
    const int64_t num_groups = (count + kPanelRows - 1) / kPanelRows;
    const auto lines_per_group = [&](int64_t n) {
        return (n * int64_t{sizeof(Stored)} / kLine + num_groups - 1) / num_groups;
    };
    const int64_t key_lines = lines_per_group(tile), value_lines = lines_per_group(value_tile);
    for (int64_t key = 0; key < most; key += kTileKeys) {
        const Stored* of_tile = keys + key * dim;
        widen(of_tile, tile, widened);
        for_row_groups(count, [&](auto group, int64_t i) {
            prefetch_share(ahead.address_after(of_tile), key_lines, i);
            score_widened<group.value>(query + i * dim, widened, dim, scores + i * kBlockLen + key);
        });
    }
    for (int64_t i = 0; i < count; ++i) {
        corrections[i] = weigh(scores + i * kBlockLen, visible[i], rows.m + r + i, rows.l + r + i);
    }
    for (int64_t d = 0; d < dim; d += kTileDims) {
        const Stored* of_tile = values + d * kBlockLen;
        widen(of_tile, value_tile, widened);
        for_row_groups(count, [&](auto group, int64_t i) {
            prefetch_share(ahead.address_after(of_tile), value_lines, i);
            const float* weights = scores + i * kBlockLen;
            float* out = acc + i * dim + d;
            if (least == kBlockLen) {
                add_widened<group.value>(widened, weights, 0, kBlockLen, dim, corrections + i, out);
            } else {
                add_visible_widened<group.value>(widened, weights, visible + i, dim, corrections + i, out);
            }
        });
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
