// The depthwise causal convolution of consecutive tokens. Included after simd_<isa>.h.
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// Tokens whose chains fill the pipes together and share the loaded taps.
constexpr int kTokensTogether = 4;
constexpr int64_t kTaps = 4;  // of the published models: known to the compiler, rows stay in registers

// `fixed` taps, or num_taps where that is 0.
template <int T, int64_t fixed>
inline void convolve(const float* const* rows, const float* taps, int64_t ldt, int64_t num_taps, int64_t channels,
                     float* out, int64_t ldo) {
    for (int64_t c = 0; c < channels; c += kLanes) {
        Vec sums[T];
        for (Vec& sum : sums) sum = zero();
#pragma GCC unroll 4
        for (int64_t i = 0; i < (fixed > 0 ? fixed : num_taps); ++i) {
            const Vec tap = load(taps + i * ldt + c);
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) sums[t] = fma(tap, load(rows[i + t] + c), sums[t]);
        }
        silu_each(sums);
        for (int t = 0; t < T; ++t) store(out + t * ldo + c, sums[t]);
    }
}

template <int64_t fixed>
void convolve_all(const float* const* rows, const float* taps, int64_t ldt, int64_t num_taps, int64_t channels,
                  int64_t num_tokens, float* out, int64_t ldo) {
    int64_t t = 0;
    for (; t + kTokensTogether <= num_tokens; t += kTokensTogether) {
        convolve<kTokensTogether, fixed>(rows + t, taps, ldt, num_taps, channels, out + t * ldo, ldo);
    }
    for (; t < num_tokens; ++t) convolve<1, fixed>(rows + t, taps, ldt, num_taps, channels, out + t * ldo, ldo);
}

void conv_silu(const float* const* rows, const float* taps, int64_t ldt, int64_t num_taps, int64_t channels,
               int64_t num_tokens, float* out, int64_t ldo) {
    (num_taps == kTaps ? convolve_all<kTaps> : convolve_all<0>)(rows, taps, ldt, num_taps, channels, num_tokens, out,
                                                                ldo);
}

}  // namespace

void fill_causal_conv(Kernels& table) {
    table.conv_silu = conv_silu;
}

}  // namespace qwick::ISA_NAMESPACE
