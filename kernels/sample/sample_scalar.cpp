// Reductions over logits: definitions.
#include <cmath>

#include "tables.h"

namespace qwick::scalar {
namespace {

float max_value(const float* x, int64_t n) {
    float max = -INFINITY;
    for (int64_t i = 0; i < n; ++i) max = std::fmax(max, x[i]);
    return max;
}

// In f64: a running f32 sum over a vocabulary would lose four digits.
float sum_exp(const float* x, int64_t n, float max) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - max);
    return static_cast<float>(sum);
}

}  // namespace

void fill_sample(Kernels& table) {
    table.max_value = max_value;
    table.sum_exp = sum_exp;
}

}  // namespace qwick::scalar
