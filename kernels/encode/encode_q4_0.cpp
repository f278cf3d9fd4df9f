// Q4_0: 32 values d * (q - 8), q in 0 .. 15, d an f16 of either sign.
#include <cstring>

#include "codec/half.h"
#include "encode/encode_blocks.h"
#include "encode/fit.h"

namespace qwick {
namespace {

constexpr int kLen = 32;
constexpr float kLow = -8, kHigh = 7;

}  // namespace

void encode_q4_0_block(const float* x, uint8_t* block) {
    const Extent extent = extent_of(x, kLen, 5);
    uint16_t d = extent == Extent::zero ? uint16_t{0} : kPoison;
    uint8_t codes[kLen];
    std::memset(codes, 8, kLen);
    if (extent == Extent::usual) {
        d = stored_scale(best_scale<kLen>(x, moments<kLen>(x), kLow, kHigh, 5.9f, 0.35f, 11).s);
        const float stored = f16_to_f32(d), inverse = stored != 0 ? 1 / stored : 0;
        for (int i = 0; i < kLen; ++i) {
            codes[i] = static_cast<uint8_t>((limited(x[i] * inverse, kLow, kHigh) + kRounder) - kRounder + 8);
        }
    }
    std::memcpy(block, &d, sizeof d);
    for (int i = 0; i < kLen / 2; ++i) block[2 + i] = static_cast<uint8_t>(codes[i] | codes[i + kLen / 2] << 4);
}

}  // namespace qwick
