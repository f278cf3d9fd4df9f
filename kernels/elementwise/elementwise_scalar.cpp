// Element by element: definitions.
#include <cmath>

#include "tables.h"

namespace qwick::scalar {
namespace {

void add(const float* a, const float* b, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
}

void sigmoid_mul(const float* gate, const float* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] / (1 + std::exp(-gate[i]));
}

}  // namespace

void fill_elementwise(Kernels& table) {
    table.add = add;
    table.silu_mul = silu_mul;
    table.sigmoid_mul = sigmoid_mul;
}

}  // namespace qwick::scalar
