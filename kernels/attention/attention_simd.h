// One step of the online softmax over a block of keys. arXiv:2205.14135, algorithm 1.
// Included after simd_<isa>.h.
//
// Up to four query rows share the loads of keys and values. What a row computes is the same alone or among others:
// a score is kLanes running sums over head_dim, an output element one chain of fma over the keys the row sees. Keys
// that a row does not see are never multiplied, not even by zero: they may hold anything.
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int64_t kBlockLen = 64;
constexpr int kRowsTogether = 4;

inline Vec load_kv(const float* p) {
    return load(p);
}
inline Vec load_kv(const uint16_t* p) {
    return load_f16(p);
}

// scores[r * kBlockLen + j] = query row r . key j, for R rows and K keys.
template <int R, int K, class Stored>
inline void score_tile(const float* query, const Stored* keys, int64_t head_dim, float* scores) {
    Vec sums[R][K];
    for (auto& of_row : sums) {
        for (Vec& sum : of_row) sum = zero();
    }
    for (int64_t d = 0; d < head_dim; d += kLanes) {
#pragma GCC unroll 8
        for (int j = 0; j < K; ++j) {
            const Vec key = load_kv(keys + j * head_dim + d);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) sums[r][j] = fma(load(query + r * head_dim + d), key, sums[r][j]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int j = 0; j < K; ++j) scores[r * kBlockLen + j] = reduce_add(sums[r][j]);
    }
}

template <int R, class Stored>
void score_rows(const float* query, const Stored* keys, int64_t begin, int64_t end, int64_t head_dim, float* scores) {
    constexpr int K = 8 / R;
    int64_t j = begin;
    for (; j + K <= end; j += K) score_tile<R, K>(query, keys + j * head_dim, head_dim, scores + j);
    for (; j < end; ++j) score_tile<R, 1>(query, keys + j * head_dim, head_dim, scores + j);
}

// Scores become weights exp(score - m), 0 after the visible ones. Returns what acc must be multiplied by.
inline float weigh(float* scores, int64_t visible, float* m, float* l) {
    for (int64_t j = visible; j < kBlockLen; ++j) scores[j] = -__builtin_inff();
    Vec largest = load(scores);
    for (int64_t j = kLanes; j < kBlockLen; j += kLanes) largest = max(largest, load(scores + j));
    const float block_max = reduce_max(largest), new_m = block_max > *m ? block_max : *m;
    const float correction = exp(*m - new_m);
    Vec sum = zero();
    for (int64_t j = 0; j < kBlockLen; j += kLanes) {
        const Vec weight = exp(sub(load(scores + j), splat(new_m)));
        store(scores + j, weight);
        sum = add(sum, weight);
    }
    *m = new_m;
    *l = *l * correction + reduce_add(sum);
    return correction;
}

// acc[r] = acc[r] * factors[r] + sum_j weights[r * kBlockLen + j] * values[j], j in [begin, end), for C vectors of
// dims.
template <int R, int C, class Stored>
inline void value_tile(const Stored* values, const float* weights, int64_t begin, int64_t end, int64_t head_dim,
                       const float* factors, float* acc) {
    Vec sums[R][C];
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) sums[r][c] = mul(load(acc + r * head_dim + c * kLanes), splat(factors[r]));
    }
    for (int64_t j = begin; j < end; ++j) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            const Vec value = load_kv(values + j * head_dim + c * kLanes);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) sums[r][c] = fma(splat(weights[r * kBlockLen + j]), value, sums[r][c]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) store(acc + r * head_dim + c * kLanes, sums[r][c]);
    }
}

template <int R, class Stored>
void add_values(const Stored* values, const float* weights, int64_t begin, int64_t end, int64_t head_dim,
                const float* factors, float* acc) {
    constexpr int C = 8 / R;
    int64_t d = 0;
    for (; d + C * kLanes <= head_dim; d += C * kLanes) {
        value_tile<R, C>(values + d, weights, begin, end, head_dim, factors, acc + d);
    }
    for (; d < head_dim; d += kLanes) value_tile<R, 1>(values + d, weights, begin, end, head_dim, factors, acc + d);
}

// R rows, each of which sees at least one key: together over the keys all of them see, then each over the rest.
template <int R, class Stored>
void attend_rows(const float* query, int64_t head_dim, const Stored* keys, const Stored* values, const int32_t* visible,
                 float* m, float* l, float* acc) {
    alignas(64) float scores[R * kBlockLen];
    float corrections[R];
    int64_t shared = visible[0];
    for (int r = 1; r < R; ++r) shared = visible[r] < shared ? visible[r] : shared;
    score_rows<R>(query, keys, 0, shared, head_dim, scores);
    for (int r = 0; r < R; ++r) {
        float* row_scores = scores + r * kBlockLen;
        score_rows<1>(query + r * head_dim, keys, shared, visible[r], head_dim, row_scores);
        corrections[r] = weigh(row_scores, visible[r], m + r, l + r);
    }
    add_values<R>(values, scores, 0, shared, head_dim, corrections, acc);
    const float one = 1;
    for (int r = 0; r < R; ++r) {
        if (visible[r] == shared) continue;
        add_values<1>(values, scores + r * kBlockLen, shared, visible[r], head_dim, &one, acc + r * head_dim);
    }
}

// The first num_rows <= R rows; returns after them.
template <int R, class Stored>
void attend_up_to(int64_t num_rows, const float* query, int64_t head_dim, const Stored* keys, const Stored* values,
                  const int32_t* visible, float* m, float* l, float* acc) {
    if (num_rows == R) return attend_rows<R>(query, head_dim, keys, values, visible, m, l, acc);
    if constexpr (R > 1) attend_up_to<R - 1>(num_rows, query, head_dim, keys, values, visible, m, l, acc);
}

template <class Stored>
void attend_block(const float* query, int64_t num_rows, int64_t head_dim, const void* keys, const void* values,
                  const int32_t* visible, float* m, float* l, float* acc) {
    for (int64_t r = 0; r < num_rows;) {
        int64_t count = 0;
        while (count < kRowsTogether && r + count < num_rows && visible[r + count] > 0) ++count;
        attend_up_to<kRowsTogether>(count, query + r * head_dim, head_dim, static_cast<const Stored*>(keys),
                                    static_cast<const Stored*>(values), visible + r, m + r, l + r, acc + r * head_dim);
        r += count > 0 ? count : 1;
    }
}

}  // namespace

void fill_attention(Kernels& table) {
    table.attend_block[0] = attend_block<float>;
    table.attend_block[1] = attend_block<uint16_t>;
}

}  // namespace qwick::ISA_NAMESPACE
