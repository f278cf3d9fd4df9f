// Norms, alone and with the rotation or the gate that follows. Included after simd_<isa>.h.
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

inline float rms_factor(const float* x, float eps, int64_t n) {
    return 1.0f / __builtin_sqrtf(dot(x, x, n) / static_cast<float>(n) + eps);
}

void rms_norm(const float* x, const float* w, float eps, int64_t n, float* out) {
    const Vec factor = splat(rms_factor(x, eps, n));
    for (int64_t i = 0; i < n; i += kLanes) store(out + i, mul(mul(load(x + i), factor), load(w + i)));
}

void gated_rms_norm(const float* x, const float* gate, const float* w, float eps, int64_t n, float* out) {
    const Vec factor = splat(rms_factor(x, eps, n));
    for (int64_t i = 0; i < n; i += kLanes) {
        store(out + i, mul(mul(mul(load(x + i), factor), load(w + i)), silu(load(gate + i))));
    }
}

void l2_norm(const float* x, int64_t n, float scale, float* out) {
    const Vec factor = splat(scale / __builtin_sqrtf(dot(x, x, n) + 1e-6f));
    for (int64_t i = 0; i < n; i += kLanes) store(out + i, mul(load(x + i), factor));
}

// n <= kLanes pairs (left[i], right[i]) turned by their angles.
inline void rotate(float* left, float* right, const float* cos, const float* sin, int64_t n) {
    const Vec l = load_n(left, n, zero()), r = load_n(right, n, zero());
    const Vec c = load_n(cos, n, zero()), s = load_n(sin, n, zero());
    store_n(left, fnma(r, s, mul(l, c)), n);
    store_n(right, fma(l, s, mul(r, c)), n);
}

void norm_rope(const float* x, const float* w, float eps, const float* cos, const float* sin, int64_t head_dim,
               int64_t rotary_dim, float* out) {
    rms_norm(x, w, eps, head_dim, out);
    const int64_t half_dim = rotary_dim / 2;
    for (int64_t d = 0; d < half_dim; d += kLanes) {
        rotate(out + d, out + half_dim + d, cos + d, sin + d, half_dim - d < kLanes ? half_dim - d : kLanes);
    }
}

}  // namespace

void fill_norm(Kernels& table) {
    table.rms_norm = rms_norm;
    table.gated_rms_norm = gated_rms_norm;
    table.l2_norm = l2_norm;
    table.norm_rope = norm_rope;
}

}  // namespace qwick::ISA_NAMESPACE
