// Norms, alone and with the rotation or the gate that follows: definitions.
#include <cmath>

#include "tables.h"

namespace qwick::scalar {
namespace {

float sum_of_squares(const float* x, int64_t n) {
    float lanes[16] = {};
    for (int64_t i = 0; i < n; i += 16) {
        for (int64_t j = 0; j < 16; ++j) lanes[j] += x[i + j] * x[i + j];
    }
    float sum = 0;
    for (const float lane : lanes) sum += lane;
    return sum;
}

float rms_factor(const float* x, float eps, int64_t n) {
    return 1 / std::sqrt(sum_of_squares(x, n) / static_cast<float>(n) + eps);
}

void rms_norm(const float* x, const float* w, float eps, int64_t n, float* out) {
    const float factor = rms_factor(x, eps, n);
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] * factor * w[i];
}

void gated_rms_norm(const float* x, const float* gate, const float* w, float eps, int64_t n, float* out) {
    const float factor = rms_factor(x, eps, n);
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] * factor * w[i] * (gate[i] / (1 + std::exp(-gate[i])));
}

void l2_norm(const float* x, int64_t n, float scale, float* out) {
    const float factor = scale / std::sqrt(sum_of_squares(x, n) + 1e-6f);
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] * factor;
}

void norm_rope(const float* x, const float* w, float eps, const float* cos, const float* sin, int64_t head_dim,
               int64_t rotary_dim, float* out) {
    rms_norm(x, w, eps, head_dim, out);
    const int64_t half = rotary_dim / 2;
    for (int64_t d = 0; d < half; ++d) {
        const float left = out[d], right = out[d + half];
        out[d] = std::fma(-right, sin[d], left * cos[d]);
        out[d + half] = std::fma(left, sin[d], right * cos[d]);
    }
}

}  // namespace

void fill_norm(Kernels& table) {
    table.rms_norm = rms_norm;
    table.gated_rms_norm = gated_rms_norm;
    table.l2_norm = l2_norm;
    table.norm_rope = norm_rope;
}

}  // namespace qwick::scalar
