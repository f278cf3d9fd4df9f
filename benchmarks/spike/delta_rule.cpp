// Question (d): how to run the gated delta rule. For one head, with S f32 [128 k][128 v], every token does
//     S *= g;  delta = (v - S^T k) * beta;  S += k delta^T;  o = S^T q.
// All variants use the equal form that touches S in one pass,
//     a = S^T k, b = S^T q;  delta = (v - g a) beta;  o = g b + delta (k.q);  S = g S + k delta^T.
#include "bench.h"
#include "vec.h"

constexpr int kDim = 128, kHeads = 16;

struct Run {  // one head's tokens; rows of q, k, v, out are `stride` floats apart
    int len, stride;
    const float *q, *k, *v, *decay, *beta;  // decay, beta: [len][kHeads], offset to the head
    float* out;
};

// Always 8 partial sums, so that no result depends on the vector width.
static float dot(const float* a, const float* b) {
    __m256 acc = _mm256_setzero_ps();
    for (int i = 0; i < kDim; i += 8) acc = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), acc);
    return sum8(acc);
}

// The definition, in double.
static void reference(const Run& run, std::vector<double>& S) {
    for (int t = 0; t < run.len; ++t) {
        const float *q = run.q + t * run.stride, *k = run.k + t * run.stride, *v = run.v + t * run.stride;
        for (int j = 0; j < kDim; ++j) {
            double kv = 0, o = 0;
            for (int i = 0; i < kDim; ++i) kv += (S[i * kDim + j] *= run.decay[t * kHeads]) * k[i];
            double delta = (v[j] - kv) * run.beta[t * kHeads];
            for (int i = 0; i < kDim; ++i) o += (S[i * kDim + j] += k[i] * delta) * q[i];
            run.out[t * run.stride + j] = float(o);
        }
    }
}

// Variant "lanes": W vectors of v, all 128 k, of a state in tiles [v / T][k][T]; S points at lane v0. No horizontal
// sums; each output is a chain over k in order, so the result is the same for every W, T, vector width and cut of the
// run.
template <int W, int T, bool kOnePass>
static void lanes_tile(const Run& run, int v0, float* S) {
    auto place = [S](int i, int w) { return S + w * kLanes / T * T * kDim + w * kLanes % T + i * T; };
    Vec delta[W] = {};
    Vec g = splat(1);
    const float* k_old = run.k;  // its delta is 0
    for (int t = 0; t < run.len; ++t) {
        const float *q = run.q + t * run.stride, *k = run.k + t * run.stride;
        Vec a[W] = {}, b[W] = {};
#pragma GCC unroll 2
        for (int i = 0; i < kDim; ++i) {
            Vec ki = splat(k[i]), qi = splat(q[i]), ko = splat(k_old[i]);
            for (int w = 0; w < W; ++w) {
                float* at = place(i, w);
                Vec s = load(at);
                if (kOnePass && t > 0) store(at, s = fma(ko, delta[w], mul(g, s)));
                a[w] = fma(s, ki, a[w]);
                b[w] = fma(s, qi, b[w]);
            }
        }
        g = splat(run.decay[t * kHeads]);
        Vec beta = splat(run.beta[t * kHeads]), kq = splat(dot(k, q));
        for (int w = 0; w < W; ++w) {
            Vec v = load(run.v + t * run.stride + v0 + w * kLanes);
            delta[w] = mul(sub(v, mul(g, a[w])), beta);
            store(run.out + t * run.stride + v0 + w * kLanes, fma(delta[w], kq, mul(g, b[w])));
        }
        k_old = k;
        if (kOnePass && t + 1 < run.len) continue;  // the next token's pass applies this update
        for (int i = 0; i < kDim; ++i)
            for (int w = 0; w < W; ++w) {
                float* at = place(i, w);
                store(at, fma(splat(k[i]), delta[w], mul(g, load(at))));
            }
    }
}

// State [k][v] in memory; kCopy brings the tile into one contiguous L1 block for the whole run (a 512-byte stride
// falls on 8 of 64 L1 sets).
template <int W, bool kOnePass, bool kCopy>
static void lanes_head(const Run& run, float* S) {
    constexpr int width = W * kLanes;
    alignas(64) float tile[kCopy ? kDim * width : 1];
    for (int v0 = 0; v0 < kDim; v0 += width) {
        if constexpr (!kCopy) {
            lanes_tile<W, kDim, kOnePass>(run, v0, S + v0);
        } else {
            for (int i = 0; i < kDim; ++i) std::copy_n(S + i * kDim + v0, width, tile + i * width);
            lanes_tile<W, width, kOnePass>(run, v0, tile);
            for (int i = 0; i < kDim; ++i) std::copy_n(tile + i * width, width, S + i * kDim + v0);
        }
    }
}

// State [v / T][k][T]: the tile is contiguous in memory too, and may be worked in other widths.
template <int W, int T>
static void tiled_head(const Run& run, float* S) {
    for (int v0 = 0; v0 < kDim; v0 += W * kLanes) lanes_tile<W, T, true>(run, v0, S + v0 / T * T * kDim + v0 % T);
}

// Variant "rows": state transposed, [v][k]; R rows stay in registers (as far as they fit) for the run; horizontal sums.
template <int R>
static void rows_head(const Run& run, float* S) {
    constexpr int num = kDim / kLanes;
    for (int v0 = 0; v0 < kDim; v0 += R) {
        Vec s[R][num];
        for (int r = 0; r < R; ++r)
            for (int i = 0; i < num; ++i) s[r][i] = load(S + (v0 + r) * kDim + i * kLanes);
        for (int t = 0; t < run.len; ++t) {
            const float *q = run.q + t * run.stride, *k = run.k + t * run.stride;
            float decay = run.decay[t * kHeads], beta = run.beta[t * kHeads], kq = dot(k, q);
            Vec a[R] = {}, b[R] = {}, g = splat(decay), delta[R];
#pragma GCC unroll 16
            for (int i = 0; i < num; ++i)
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    a[r] = fma(s[r][i], load(k + i * kLanes), a[r]);
                    b[r] = fma(s[r][i], load(q + i * kLanes), b[r]);
                }
            for (int r = 0; r < R; ++r) {
                float d = (run.v[t * run.stride + v0 + r] - decay * sum(a[r])) * beta;
                run.out[t * run.stride + v0 + r] = decay * sum(b[r]) + d * kq;
                delta[r] = splat(d);
            }
#pragma GCC unroll 16
            for (int i = 0; i < num; ++i)
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) s[r][i] = fma(load(k + i * kLanes), delta[r], mul(g, s[r][i]));
        }
        for (int r = 0; r < R; ++r)
            for (int i = 0; i < num; ++i) store(S + (v0 + r) * kDim + i * kLanes, s[r][i]);
    }
}

#include "delta_rule_chunked.h"

enum class Layout { kv, vk, tiled };  // how a variant keeps S
struct Variant {
    const char* name;
    void (*head)(const Run&, float*);
    Layout layout;
    int width = 0;  // of a tile
};
static const Variant kVariants[] = {
    {"rows [v][k], 1 row in registers", rows_head<1>, Layout::vk},
    {"rows [v][k], 2 rows", rows_head<2>, Layout::vk},
    {"rows [v][k], 4 rows", rows_head<4>, Layout::vk},
    {"lanes [k][v], 1 vector, in place", lanes_head<1, true, false>, Layout::kv},
    {"lanes [k][v], 2 vectors, in place", lanes_head<2, true, false>, Layout::kv},
    {"lanes [k][v], 1 vector, L1 copy", lanes_head<1, true, true>, Layout::kv},
    {"lanes [k][v], 2 vectors, L1 copy", lanes_head<2, true, true>, Layout::kv},
    {"lanes [k][v], 2 vectors, L1 copy, two passes", lanes_head<2, false, true>, Layout::kv},
    {"lanes [k][v], 4 vectors, L1 copy", lanes_head<4, true, true>, Layout::kv},
    {"lanes [v/16][k][16], 16 at a time", tiled_head<16 / kLanes, 16>, Layout::tiled, 16},
    {"lanes [v/16][k][16], 32 at a time", tiled_head<32 / kLanes, 16>, Layout::tiled, 16},
    {"lanes [v/32][k][32], 16 at a time", tiled_head<16 / kLanes, 32>, Layout::tiled, 32},
    {"lanes [v/32][k][32], 32 at a time", tiled_head<32 / kLanes, 32>, Layout::tiled, 32},
    {"lanes [v/64][k][64], 64 at a time", tiled_head<64 / kLanes, 64>, Layout::tiled, 64},
    {"chunked WY, C=16", chunked_head<16>, Layout::kv},
    {"chunked WY, C=32", chunked_head<32>, Layout::kv},
    {"chunked WY, C=64", chunked_head<64>, Layout::kv},
};

static int state_index(const Variant& variant, int k, int v) {
    if (variant.layout == Layout::vk) return v * kDim + k;
    if (variant.layout == Layout::kv) return k * kDim + v;
    return (v / variant.width * kDim + k) * variant.width + v % variant.width;
}

#include "delta_rule_main.h"
