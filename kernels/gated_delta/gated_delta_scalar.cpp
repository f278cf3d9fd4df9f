// The gated delta rule, token by token: definition. arXiv:2412.06464, eq. 10.
#include <algorithm>
#include <cmath>

#include "tables.h"

namespace qwick::scalar {
namespace {

float dot(const float* a, const float* b, int64_t n) {
    float sum = 0;
    for (int64_t i = 0; i < n; ++i) sum = std::fma(a[i], b[i], sum);
    return sum;
}

// One token for one column of the state (one v lane), its elements `stride` apart. Returns the output.
float delta_step(float* s, int64_t k_dim, int64_t stride, const float* q, const float* k, float v, float g, float beta) {
    float recalled_k = 0, recalled_q = 0;
    for (int64_t i = 0; i < k_dim; ++i) {
        recalled_k = std::fma(s[i * stride], k[i], recalled_k);
        recalled_q = std::fma(s[i * stride], q[i], recalled_q);
    }
    const float delta = beta * std::fma(-g, recalled_k, v);
    for (int64_t i = 0; i < k_dim; ++i) s[i * stride] = std::fma(k[i], delta, g * s[i * stride]);
    return std::fma(dot(k, q, k_dim), delta, g * recalled_q);
}

void delta_run(float* s, int64_t k_dim, int64_t v_dim, int64_t v_begin, int64_t v_end, int64_t num_tokens, const float* q,
               const float* k, int64_t ldqk, const float* v, int64_t ldv, const float* g, const float* beta, int64_t ldg,
               float* out, int64_t ldo) {
    for (int64_t t = 0; t < num_tokens; ++t) {
        for (int64_t lane = v_begin; lane < v_end; ++lane) {
            const int64_t tile = lane / kDeltaTile * kDeltaTile;
            const int64_t width = std::min(kDeltaTile, v_dim - tile);
            float* column = s + tile * k_dim + lane - tile;
            out[t * ldo + lane] = delta_step(column, k_dim, width, q + t * ldqk, k + t * ldqk, v[t * ldv + lane],
                                             g[t * ldg], beta[t * ldg]);
        }
    }
}

}  // namespace

void fill_gated_delta(Kernels& table) { table.delta_run = delta_run; }

}  // namespace qwick::scalar
