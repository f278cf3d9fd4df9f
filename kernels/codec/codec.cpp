#include "codec/codec.h"

#include <cmath>

#include "codec/half.h"
#include "kernels.h"

namespace qwick {
namespace {

void encode_block(const float* x, int8_t* quants, uint16_t* scale) {
    float amax = 0, all = 0;
    for (int64_t i = 0; i < kQuantBlock; ++i) {
        amax = std::fmax(amax, std::fabs(x[i]));  // fmax drops NaN, the sum below keeps it
        all += x[i];
    }
    const bool finite = std::isfinite(amax) && !std::isnan(all);
    const float d = amax / 127.0f;
    const float inverse = d != 0 && finite ? 1.0f / d : 0.0f;
    for (int64_t i = 0; i < kQuantBlock; ++i) {
        const float scaled = finite ? std::round(x[i] * inverse) : 0.0f;
        quants[i] =
            static_cast<int8_t>(std::fmin(std::fmax(scaled, -128.0f), 127.0f));  // 1 / d overflows for denormal d
    }
    *scale = finite ? f32_to_f16(d) : uint16_t{0x7e00};
}

}  // namespace

void encode_q8_0(const float* x, int64_t k, int8_t* quants, uint16_t* scales) {
    for (int64_t block = 0; block < k / kQuantBlock; ++block) {
        encode_block(x + block * kQuantBlock, quants + block * kQuantBlock, scales + block);
    }
}

void encode_bf16(const float* x, int64_t n, uint16_t* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = f32_to_bf16(x[i]);
}

void decode_bf16(const uint16_t* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = bf16_to_f32(x[i]);
}

}  // namespace qwick
