// Reductions over logits. Included after simd_<isa>.h.
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();

// The next kLanes of n > 0 values; minus infinity after the last.
inline Vec load_logits(const float* x, int64_t n) {
    return n >= kLanes ? load(x) : load_n(x, n, splat(kMinusInfinity));
}

float max_value(const float* x, int64_t n) {
    constexpr int64_t kChains = 4;
    Vec largest[kChains];
    for (Vec& v : largest) v = splat(kMinusInfinity);
    int64_t i = 0;
    for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
        for (int64_t c = 0; c < kChains; ++c) largest[c] = max(load(x + i + c * kLanes), largest[c]);
    }
    for (; i < n; i += kLanes) largest[0] = max(load_logits(x + i, n - i), largest[0]);
    return reduce_max(max(max(largest[0], largest[1]), max(largest[2], largest[3])));
}

// f32 sums of a thousand terms, added in f64: a running f32 sum over a vocabulary would lose digits.
float sum_exp(const float* x, int64_t n, float max) {
    constexpr int64_t kChunk = 1024;
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += kChunk) {
        const int64_t end = begin + kChunk < n ? begin + kChunk : n;
        Vec sum = zero();
        for (int64_t i = begin; i < end; i += kLanes) {
            sum = add(sum, exp(sub(load_logits(x + i, end - i), splat(max))));
        }
        total += static_cast<double>(reduce_add(sum));
    }
    return static_cast<float>(total);
}

}  // namespace

void fill_sample(Kernels& table) {
    table.max_value = max_value;
    table.sum_exp = sum_exp;
}

}  // namespace qwick::ISA_NAMESPACE
