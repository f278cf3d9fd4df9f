// The gated delta rule. Included after simd_<isa>.h.
//
// Lanes are v columns of the state, so nothing is summed across lanes. One pass over the state per token: the pass for
// token t first applies the update of token t - 1, then sums what k_t and q_t recall (benchmarks/spike/delta_rule.cpp).
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

struct Tokens {  // one head's inputs for the lanes of one tile; rows ld… floats apart
    int64_t num;
    const float *q, *k;
    int64_t ldqk;
    const float* v;
    int64_t ldv;
    const float *g, *beta;
    int64_t ldg;
    float* out;
    int64_t ldo;
};

// k . q, always in eight running sums, so that every ISA agrees.
inline float overlap(const float* k, const float* q, int64_t n) {
    __m256 sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += 8) sum = _mm256_fmadd_ps(_mm256_loadu_ps(k + i), _mm256_loadu_ps(q + i), sum);
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

constexpr int kVecsPerTile = kDeltaTile / kLanes;

// s <- g s + k delta^T for W vectors of lanes: the update of one token. On the way a = s^T k_next, b = s^T q_next of
// the new s. Each lane's sums run over k in order.
template <int W, bool update, bool recall>
inline void pass(float* s, int64_t k_dim, float g, const float* k, const Vec (&delta)[W], const float* k_next,
                 const float* q_next, Vec (&a)[W], Vec (&b)[W]) {
    const Vec decay = splat(g);
    Vec sum_a[W], sum_b[W];
    for (int w = 0; w < W; ++w) sum_a[w] = sum_b[w] = zero();
#pragma GCC unroll 2
    for (int64_t i = 0; i < k_dim; ++i) {
        // Before the stores: the compiler must assume that those change k and q.
        const Vec k_i = splat(k[i]), k_next_i = splat(k_next[i]), q_next_i = splat(q_next[i]);
#pragma GCC unroll 4
        for (int w = 0; w < W; ++w) {
            float* at = s + (w / kVecsPerTile * k_dim + i) * kDeltaTile + w % kVecsPerTile * kLanes;
            Vec state = load(at);
            if constexpr (update) {
                state = fma(k_i, delta[w], mul(decay, state));
                store(at, state);
            }
            if constexpr (recall) {
                sum_a[w] = fma(state, k_next_i, sum_a[w]);
                sum_b[w] = fma(state, q_next_i, sum_b[w]);
            }
        }
    }
    for (int w = 0; w < W; ++w) a[w] = sum_a[w], b[w] = sum_b[w];
}

// delta = beta (v - g a); o = g b + (k . q) delta, which is S^T q after the update.
template <int W>
inline void emit(const Tokens& tokens, int64_t t, int64_t k_dim, const Vec (&a)[W], const Vec (&b)[W],
                 Vec (&delta)[W]) {
    const Vec decay = splat(tokens.g[t * tokens.ldg]), beta = splat(tokens.beta[t * tokens.ldg]);
    const Vec k_q = splat(overlap(tokens.k + t * tokens.ldqk, tokens.q + t * tokens.ldqk, k_dim));
    for (int w = 0; w < W; ++w) {
        const Vec value = load(tokens.v + t * tokens.ldv + w * kLanes);
        delta[w] = mul(beta, fnma(decay, a[w], value));
        store(tokens.out + t * tokens.ldo + w * kLanes, fma(k_q, delta[w], mul(decay, b[w])));
    }
}

// All tokens for as many tiles of the state as W vectors cover; they stay in the nearest cache.
template <int W>
void run_tiles(float* s, int64_t k_dim, const Tokens& tokens) {
    Vec a[W], b[W], delta[W];
    for (Vec& d : delta) d = zero();
    for (int64_t t = 0; t < tokens.num; ++t) {
        const float *k = tokens.k + t * tokens.ldqk, *q = tokens.q + t * tokens.ldqk;
        if (t == 0) {
            pass<W, false, true>(s, k_dim, 1, k, delta, k, q, a, b);
        } else {
            pass<W, true, true>(s, k_dim, tokens.g[(t - 1) * tokens.ldg], k - tokens.ldqk, delta, k, q, a, b);
        }
        emit<W>(tokens, t, k_dim, a, b, delta);
    }
    const float* k = tokens.k + (tokens.num - 1) * tokens.ldqk;
    pass<W, true, false>(s, k_dim, tokens.g[(tokens.num - 1) * tokens.ldg], k, delta, k, k, a, b);
}

// One token for W vectors of lanes after W others: those before `s` are updated (as in `pass`) while those at `s` are
// read for the first time, so that memory is asked for something all the time.
template <int W, bool update, bool recall>
inline void sweep(float* s, int64_t k_dim, float g, const float* k, const float* q, const Vec (&delta)[W], Vec (&a)[W],
                  Vec (&b)[W]) {
    const Vec decay = splat(g);
    Vec sum_a[W], sum_b[W];
    for (int w = 0; w < W; ++w) sum_a[w] = sum_b[w] = zero();
    float* before = update ? s - W * kLanes * k_dim : s;
    for (int64_t i = 0; i < k_dim; ++i) {
        const Vec k_i = splat(k[i]), q_i = splat(q[i]);
#pragma GCC unroll 4
        for (int w = 0; w < W; ++w) {
            const int64_t at = (w / kVecsPerTile * k_dim + i) * kDeltaTile + w % kVecsPerTile * kLanes;
            if constexpr (recall) {
                const Vec state = load(s + at);
                sum_a[w] = fma(state, k_i, sum_a[w]);
                sum_b[w] = fma(state, q_i, sum_b[w]);
            }
            if constexpr (update) store(before + at, fma(k_i, delta[w], mul(decay, load(before + at))));
        }
    }
    for (int w = 0; w < W; ++w) a[w] = sum_a[w], b[w] = sum_b[w];
}

// One token for `num` lanes, a multiple of W vectors: from memory once and back once.
template <int W>
void run_token(float* s, int64_t k_dim, int64_t num, const Tokens& token) {
    Vec a[W], b[W], delta[W];
    for (int64_t lane = 0; lane <= num; lane += W * kLanes) {
        float* at = s + lane * k_dim;
        if (lane == 0) {
            sweep<W, false, true>(at, k_dim, *token.g, token.k, token.q, delta, a, b);
        } else if (lane < num) {
            sweep<W, true, true>(at, k_dim, *token.g, token.k, token.q, delta, a, b);
        } else {
            sweep<W, true, false>(at, k_dim, *token.g, token.k, token.q, delta, a, b);
            return;
        }
        emit<W>({1, token.q, token.k, 0, token.v + lane, 0, token.g, token.beta, 0, token.out + lane, 0}, 0, k_dim, a,
                b, delta);
    }
}

void delta_run(float* s, int64_t k_dim, int64_t /*v_dim*/, int64_t v_begin, int64_t v_end, int64_t num_tokens,
               const float* q, const float* k, int64_t ldqk, const float* v, int64_t ldv, const float* g,
               const float* beta, int64_t ldg, float* out, int64_t ldo) {
    if (num_tokens == 0) return;
    int64_t lane = v_begin;
    if (const int64_t pairs = (v_end - lane) / (2 * kDeltaTile) * (2 * kDeltaTile); num_tokens == 1 && pairs > 0) {
        run_token<2 * kVecsPerTile>(s + lane * k_dim, k_dim, pairs,
                                    {1, q, k, 0, v + lane, 0, g, beta, 0, out + lane, 0});
        lane += pairs;
    }
    while (lane < v_end) {
        const Tokens tokens{num_tokens, q, k, ldqk, v + lane, ldv, g, beta, ldg, out + lane, ldo};
        // Two tiles at once: one has too few chains of fma to hide their latency.
        if (v_end - lane >= 2 * kDeltaTile) {
            run_tiles<2 * kVecsPerTile>(s + lane * k_dim, k_dim, tokens);
            lane += 2 * kDeltaTile;
        } else {
            run_tiles<kVecsPerTile>(s + lane * k_dim, k_dim, tokens);
            lane += kDeltaTile;
        }
    }
}

}  // namespace

void fill_gated_delta(Kernels& table) {
    table.delta_run = delta_run;
}

}  // namespace qwick::ISA_NAMESPACE
