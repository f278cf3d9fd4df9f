// The rows of a prompt over a block of keys and values, by products of bf16 tiles. Included after simd_amx.h.
//
// bf16 has 8 bits, so floats go in parts: the upper half, then that of what is left. Two parts make an f16 exactly, and
// 16 bits of a query, of a weight or of a value of q8_0; a bf16 is one. The product of both rests is left out. So
// a product takes three of tiles, or two with keys and values in bf16, and is off by some 2^-16. Single parts would
// take a third of the dots and be off by 2^-9, eight times what f16 is.
//
// Lane i of a tile's row pairs values i and 16 + i of the 32 that it sums over, in both operands: two vectors make one
// and nothing crosses lanes. Every output is one chain over the keys: by 32, and of these product by product.
#pragma once

#include "attention/kv_parts_amx.h"
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int64_t kMostRows = 192, kMostStrips = kMostRows / kTileSide;
constexpr int64_t kSteps = kMostPromptDims / kTileDepth;
constexpr int kRowParts = 2;  // of a query or a weight

// --- products

// 16 rows of an A operand, the second part to_rest bytes behind the first.
struct Strip {
    const char* rows;
    int64_t stride, to_rest;
};

// C tiles 0 .. 3 += 32 columns of A (tiles 4, 5) times a pair of B (6, 7).
template <bool two>
inline void dot_pair(const char* a, const char* next_a, int64_t stride, const char* b) {
    tile_load<6>(b, kTileRowBytes);
    tile_load<4>(a, stride);
    tile_dot<0, 4, 6>();
    tile_load<7>(b + kTileBytes, kTileRowBytes);
    tile_dot<1, 4, 7>();
    if constexpr (two) {
        tile_load<5>(next_a, stride);
        tile_dot<2, 5, 6>();
        tile_dot<3, 5, 7>();
    }
}

template <class Stored, bool two>
inline void add_products(const Strip& a, const Strip& next, const char* b, int64_t steps) {
#pragma GCC unroll 1  // GCC 12 peels all and keeps the addresses on the stack
    for (int64_t s = 0; s < steps; ++s, b += kParts<Stored> * kTilePair) {
        const char *rows = a.rows + s * kTileRowBytes, *next_rows = next.rows + s * kTileRowBytes;
        dot_pair<two>(rows, next_rows, a.stride, b);
        if constexpr (kParts<Stored> == 2) dot_pair<two>(rows, next_rows, a.stride, b + kTilePair);
        dot_pair<two>(rows + a.to_rest, next_rows + a.to_rest, a.stride, b);
    }
}

// c[16][32], and next_c, (+)= A times B.
template <class Stored, bool two>
inline void multiply_pair(const Strip& a, const Strip& next, const char* b, int64_t steps, bool first, float* c,
                          float* next_c, int64_t stride) {
    if (first) {
        tile_zero<0>(), tile_zero<1>();
        if constexpr (two) tile_zero<2>(), tile_zero<3>();
    } else {
        tile_load<0>(c, stride), tile_load<1>(c + kTileSide, stride);
        if constexpr (two) tile_load<2>(next_c, stride), tile_load<3>(next_c + kTileSide, stride);
    }
    add_products<Stored, two>(a, next, b, steps);
    tile_store<0>(c, stride), tile_store<1>(c + kTileSide, stride);
    if constexpr (two) tile_store<2>(next_c, stride), tile_store<3>(next_c + kTileSide, stride);
}

// All strips, c[i] each; stride in bytes.
template <class Stored>
inline void multiply_strips(const Strip* a, int64_t num_strips, const char* b, int64_t steps, bool first,
                            float* const* c, int64_t column, int64_t stride) {
    int64_t i = 0;
    for (; i + 1 < num_strips; i += 2) {
        multiply_pair<Stored, true>(a[i], a[i + 1], b, steps, first, c[i] + column, c[i + 1] + column, stride);
    }
    if (i < num_strips) {
        multiply_pair<Stored, false>(a[i], a[i], b, steps, first, c[i] + column, c[i] + column, stride);
    }
}

// --- softmax

// exp of each x <= 0, within 2^-22; 0 below -104, a NaN stays one. Half the instructions of exp_each.
template <int N>
inline void exp_each_below(Vec (&xs)[N]) {
    constexpr float kRound = 3 << 22;  // added, leaves integers
    Vec n[N], p[N];
    const auto each = [](auto step) {
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) step(i);
    };
    each([&](int i) { xs[i] = max(splat(-120.0f), xs[i]); });
    each([&](int i) { n[i] = sub(fma(xs[i], splat(1.44269504f), splat(kRound)), splat(kRound)); });
    each([&](int i) { xs[i] = fnma(n[i], splat(0.693147181f), xs[i]); });
    each([&](int i) { p[i] = fma(splat(8.290305734e-3f), xs[i], splat(4.189797491e-2f)); });
    each([&](int i) { p[i] = fma(p[i], xs[i], splat(1.666763723e-1f)); });
    each([&](int i) { p[i] = fma(p[i], xs[i], splat(4.999915063e-1f)); });
    each([&](int i) { p[i] = fma(p[i], xs[i], splat(9.999997020e-1f)); });
    each([&](int i) { p[i] = fma(p[i], xs[i], splat(1.0f)); });
    each([&](int i) { xs[i] = _mm512_scalef_ps(p[i], n[i]); });
}

constexpr int64_t kWeightBytes = kRowParts * kBlockLen * 2;  // of a row: [part][64] bf16

// `count` <= 16 rows of scores become weights exp(score - m), 0 after the visible ones. corrections: what acc must be
// multiplied by.
inline void weigh_strip(const float* scores, const int32_t* visible, int64_t count, float* m, float* l,
                        float* corrections, char* weights) {
    alignas(64) float largest[kLanes] = {}, sums[kLanes] = {}, new_m[kLanes];
    const auto load_scores = [&](int64_t r, Vec(&row)[kBlockLen / kLanes]) {
        for (int64_t v = 0; v < kBlockLen / kLanes; ++v) {
            const float* from = scores + r * kBlockLen + v * kLanes;
            const int64_t left = visible[r] - v * kLanes;
            row[v] = left >= kLanes ? load(from) : load_n(from, left > 0 ? left : 0, splat(-__builtin_inff()));
        }
    };
    Vec row[kBlockLen / kLanes];
    for (int64_t r = 0; r < count; ++r) {
        load_scores(r, row);
        largest[r] = reduce_max(max(max(row[0], row[1]), max(row[2], row[3])));
    }
    const Vec before = load_n(m, count, zero()), after = max(load(largest), before);
    Vec correction[] = {sub(before, after)};
    exp_each_below(correction);
    store(new_m, after);
    store(corrections, correction[0]);
    for (int64_t r = 0; r < count; ++r) {
        load_scores(r, row);
        for (Vec& v : row) v = sub(v, splat(new_m[r]));
        exp_each_below(row);
        sums[r] = reduce_add(add(add(row[0], row[1]), add(row[2], row[3])));
        for (int64_t step = 0; step < kBlockSteps; ++step) {
            char* out = weights + r * kWeightBytes + step * kTileRowBytes;
            store_parts<kRowParts>(row[2 * step], row[2 * step + 1], out, kBlockLen * 2);
        }
    }
    store_n(m, after, count);
    store_n(l, fma(load_n(l, count, zero()), correction[0], load(sums)), count);
}

inline void scale_rows(float* acc, int64_t head_dim, const float* factors, int64_t count) {
    for (int64_t r = 0; r < count; ++r, acc += head_dim) {
        if (factors[r] == 1) continue;
        const Vec factor = splat(factors[r]);
        for (int64_t d = 0; d < head_dim; d += kLanes) store(acc + d, mul(load(acc + d), factor));
    }
}

// --- a block

template <class Stored>
struct Workspace {
    alignas(64) char tiles[kSteps * kParts<Stored> * kTilePair];
    alignas(64) float scores[kMostRows * kBlockLen];
    alignas(64) char weights[kMostRows * kWeightBytes];
    alignas(64) float corrections[kMostStrips][kTileSide];
    // A last strip of fewer rows: tiles are whole, what lies behind a caller's rows is not ours.
    alignas(64) float query[kTileSide * kMostPromptDims], acc[kTileSide * kMostPromptDims];
};

// Rows that each see at least one key and at most `most`; count <= kMostRows. nothrow: else GCC would have the tiles
// released by a handler, which is the C++ library's.
template <class Stored>
[[gnu::nothrow]] void attend_rows(const AttendRows& rows, const KvBlock& block, int64_t most, Workspace<Stored>& work) {
    const int64_t dim = rows.head_dim, row_bytes = dim * static_cast<int64_t>(sizeof(float));
    const int64_t num_strips = (rows.count + kTileSide - 1) / kTileSide, rest = rows.count % kTileSide;
    const int64_t whole = rows.count - rest;
    const int64_t bytes = kv_block_bytes(kFormat<Stored>, dim);
    Strip queries[kMostStrips], weights[kMostStrips];
    float *scores[kMostStrips], *accs[kMostStrips];
    for (int64_t i = 0; i < num_strips; ++i) {
        const bool copied = i * kTileSide == whole;
        const float* query = copied ? work.query : rows.query + i * kTileSide * dim;
        queries[i] = {reinterpret_cast<const char*>(query), row_bytes, row_bytes / 2};
        weights[i] = {work.weights + i * kTileSide * kWeightBytes, kWeightBytes, kBlockLen * 2};
        scores[i] = work.scores + i * kTileSide * kBlockLen;
        accs[i] = copied ? work.acc : rows.acc + i * kTileSide * dim;
    }
    __builtin_memcpy(work.query, rows.query + whole * dim, rest * row_bytes);
    __builtin_memcpy(work.acc, rows.acc + whole * dim, rest * row_bytes);

    using Data = decltype(Keys<Stored>::data);
    const Keys<Stored> keys{static_cast<Data>(block.data), dim};
    const ReadAhead read_ahead = read_ahead_of(block, bytes, bytes / 2, false);
    for (int64_t key = 0; key < most; key += 2 * kTileKeys) {
        make_key_tiles<Stored>(keys, key / kTileKeys, read_ahead, work.tiles);
        multiply_strips<Stored>(queries, num_strips, work.tiles, dim / kTileDepth, true, scores, key,
                                kBlockLen * sizeof(float));
    }
    for (int64_t i = 0; i < num_strips; ++i) {
        const int64_t r = i * kTileSide, count = rows.count - r < kTileSide ? rows.count - r : kTileSide;
        weigh_strip(scores[i], rows.visible + r, count, rows.m + r, rows.l + r, work.corrections[i],
                    work.weights + r * kWeightBytes);
        scale_rows(accs[i], dim, work.corrections[i], count);
    }
    const char* values = static_cast<const char*>(block.data) + bytes;
    for (int64_t d = 0; d < dim; d += 2 * kTileDims) {
        make_value_tiles<Stored>(Values<Stored>(values, d), most, work.tiles);
        multiply_strips<Stored>(weights, num_strips, work.tiles, kBlockSteps, false, accs, d, row_bytes);
    }
    __builtin_memcpy(rows.acc + whole * dim, work.acc, rest * row_bytes);
}

// Whether values of keys [begin, end) are numbers.
template <class Stored>
bool all_finite(const KvBlock& block, int64_t head_dim, int64_t begin, int64_t end) {
    const char* values = static_cast<const char*>(block.data) + kv_block_bytes(kFormat<Stored>, head_dim);
    Vec strays = zero();
    for (int64_t d = 0; d < head_dim; d += 2 * kTileDims) {
        const Values<Stored> of_dims(values, d);
        for (int64_t j = begin; j < end; ++j) {
            for (int64_t n = 0; n < 2; ++n) {
                const Vec v = of_dims.load_key(n, j);
                strays = add(strays, sub(v, v));
            }
        }
    }
    return reduce_add(strays) == 0;
}

inline AttendRows some_of(const AttendRows& rows, int64_t r, int64_t count) {
    const int64_t at = r * rows.head_dim;
    return {count, rows.head_dim, rows.query + at, rows.visible + r, rows.m + r, rows.l + r, rows.acc + at};
}

// Rows go together unless some see a NaN or an infinity and others do not: a weight of zero would not silence it.
template <class Stored>
[[gnu::nothrow]] void attend_visible(const AttendRows& rows, const KvBlock& block, Workspace<Stored>& work) {
    int64_t most = 0, least = kBlockLen;
    for (int64_t r = 0; r < rows.count; ++r) {
        most = rows.visible[r] > most ? rows.visible[r] : most;
        least = rows.visible[r] < least ? rows.visible[r] : least;
    }
    if (least == most || all_finite<Stored>(block, rows.head_dim, least, most)) {
        return attend_rows(rows, block, most, work);
    }
    for (int64_t r = 0; r < rows.count;) {
        int64_t count = 1;
        while (r + count < rows.count && rows.visible[r + count] == rows.visible[r]) ++count;
        attend_rows(some_of(rows, r, count), block, rows.visible[r], work);
        r += count;
    }
}

// Rows that see nothing are stepped over.
template <class Stored>
void attend_prompt(const AttendRows& rows, const KvBlock& block) {
    const Tiles tiles;
    Workspace<Stored> work;
    for (int64_t r = 0; r < rows.count;) {
        int64_t count = 0;
        while (count < kMostRows && r + count < rows.count && rows.visible[r + count] > 0) ++count;
        if (count > 0) attend_visible(some_of(rows, r, count), block, work);
        r += count > 0 ? count : 1;
    }
}

// [part][head_dim] bf16, 32 by 32 in the pairs of a tile. Rounded, because once is enough.
void load_prompt_query(const float* x, int64_t head_dim, float scale, float* out) {
    char* parts = reinterpret_cast<char*>(out);
    for (int64_t d = 0; d < head_dim; d += kTileDepth) {
        Vec low = mul(load(x + d), splat(scale)), high = mul(load(x + d + kHalf), splat(scale));
        for (int p = 0; p < kRowParts; ++p) {
            const Vec upper = round_bf16(low), other = round_bf16(high);
            store_parts<1>(upper, other, parts + (p * head_dim + d) * 2, 0);
            low = sub(low, upper), high = sub(high, other);
        }
    }
}

template <class Stored>
void fill_format(Kernels& table) {
    constexpr int entry = static_cast<int>(kFormat<Stored>);
    table.attend_prompt[entry] = attend_prompt<Stored>;
    table.load_prompt_query[entry] = load_prompt_query;
}

}  // namespace

// Keys and values in f32 are for those who want no rounding: they stay with the vectors.
void fill_attention(Kernels& table) {
    fill_format<F16>(table);
    fill_format<Bf16>(table);
    fill_format<Q8Groups>(table);
}

}  // namespace qwick::ISA_NAMESPACE
