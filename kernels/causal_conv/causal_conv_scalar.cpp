// The depthwise causal convolution of consecutive tokens: definition.
#include <cmath>

#include "tables.h"

namespace qwick::scalar {
namespace {

void conv_silu(const float* const* rows, const float* taps, int64_t ldt, int64_t num_taps, int64_t channels,
               int64_t num_tokens, float* out, int64_t ldo) {
    for (int64_t t = 0; t < num_tokens; ++t) {
        for (int64_t c = 0; c < channels; ++c) {
            float sum = 0;
            for (int64_t i = 0; i < num_taps; ++i) sum = std::fma(taps[i * ldt + c], rows[t + i][c], sum);
            out[t * ldo + c] = sum / (1 + std::exp(-sum));
        }
    }
}

}  // namespace

void fill_causal_conv(Kernels& table) {
    table.conv_silu = conv_silu;
}

}  // namespace qwick::scalar
