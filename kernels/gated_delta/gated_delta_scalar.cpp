// The gated delta rule, token by token: definition. arXiv:2412.06464, eq. 10.
#include <cmath>

#include "tables.h"

namespace qwick::scalar {
namespace {

float overlap(const float* k, const float* q, int64_t n) {
    float sums[8] = {};
    for (int64_t i = 0; i < n; i += 8) {
        for (int64_t j = 0; j < 8; ++j) sums[j] = std::fma(k[i + j], q[i + j], sums[j]);
    }
    for (int64_t half = 4; half > 0; half /= 2) {
        for (int64_t j = 0; j < half; ++j) sums[j] += sums[j + half];
    }
    return sums[0];
}

// One token for one column of the state (one v lane), its elements kDeltaTile apart. Returns the output.
float delta_step(float* s, int64_t k_dim, const float* q, const float* k, float v, float g, float beta) {
    float recalled_k = 0, recalled_q = 0;
    for (int64_t i = 0; i < k_dim; ++i) {
        recalled_k = std::fma(s[i * kDeltaTile], k[i], recalled_k);
        recalled_q = std::fma(s[i * kDeltaTile], q[i], recalled_q);
    }
    const float delta = beta * std::fma(-g, recalled_k, v);
    for (int64_t i = 0; i < k_dim; ++i) s[i * kDeltaTile] = std::fma(k[i], delta, g * s[i * kDeltaTile]);
    return std::fma(overlap(k, q, k_dim), delta, g * recalled_q);
}

void delta_run(float* s, int64_t k_dim, int64_t /*v_dim*/, int64_t v_begin, int64_t v_end, int64_t num_tokens,
               const float* q, const float* k, int64_t ldqk, const float* v, int64_t ldv, const float* g,
               const float* beta, int64_t ldg, float* out, int64_t ldo) {
    for (int64_t t = 0; t < num_tokens; ++t) {
        for (int64_t lane = v_begin; lane < v_end; ++lane) {
            float* column = s + lane / kDeltaTile * kDeltaTile * k_dim + lane % kDeltaTile;
            out[t * ldo + lane] =
                delta_step(column, k_dim, q + t * ldqk, k + t * ldqk, v[t * ldv + lane], g[t * ldg], beta[t * ldg]);
        }
    }
}

}  // namespace

void fill_gated_delta(Kernels& table) {
    table.delta_run = delta_run;
}

}  // namespace qwick::scalar
