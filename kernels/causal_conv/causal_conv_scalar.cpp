// The depthwise causal convolution of one token: definition.
#include <cmath>

#include "tables.h"

namespace qwick::scalar {
namespace {

void conv_silu(const float* const* rows, const float* taps, int64_t ldt, int64_t num_taps, int64_t channels,
               float* out) {
    for (int64_t c = 0; c < channels; ++c) {
        float sum = 0;
        for (int64_t i = 0; i < num_taps; ++i) sum = std::fma(taps[i * ldt + c], rows[i][c], sum);
        out[c] = sum / (1 + std::exp(-sum));
    }
}

}  // namespace

void fill_causal_conv(Kernels& table) {
    table.conv_silu = conv_silu;
}

}  // namespace qwick::scalar
