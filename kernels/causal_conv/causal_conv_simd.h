// The depthwise causal convolution of one token. Included after simd_<isa>.h.
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

void conv_silu(const float* const* rows, const float* taps, int64_t ldt, int64_t num_taps, int64_t channels,
               float* out) {
    for (int64_t c = 0; c < channels; c += kLanes) {
        Vec sum = zero();
        for (int64_t i = 0; i < num_taps; ++i) sum = fma(load(taps + i * ldt + c), load(rows[i] + c), sum);
        store(out + c, silu(sum));
    }
}

}  // namespace

void fill_causal_conv(Kernels& table) {
    table.conv_silu = conv_silu;
}

}  // namespace qwick::ISA_NAMESPACE
