// Q6_K: 16 sub-blocks of 16 values, d * s * q, q in -32 .. 31, s of 8 bits with a sign, d f16.
#include <cmath>
#include <cstring>

#include "codec/half.h"
#include "encode/encode_blocks.h"
#include "encode/fit.h"

namespace qwick {
namespace {

constexpr int kSub = 16, kSubs = 16, kLen = kSub * kSubs;
constexpr float kLow = -32, kHigh = 31;

struct Scaled {
    int s;
    float error;
    Sums sums;
};

struct Scales {
    uint16_t d;
    Scaled subs[kSubs];
    float error;
};

Sums sums_of(const float* x, float scale) {
    return code_sums<kSub>(x, scale != 0 ? 1 / scale : 0, 0, kLow, kHigh);
}

Scaled best_sub(const float* x, const Moments& m, float d, float wanted) {
    const float ratio = d != 0 ? limited(wanted / d, -128, 127) : 0;
    const int s0 = static_cast<int>((ratio + kRounder) - kRounder);
    Scaled best{0, m.xx, {}};
    for (int s = s0 - 1; s <= s0 + 1; ++s) {
        if (s < -128 || s > 127) continue;
        const float scale = d * static_cast<float>(s);
        const Sums sums = sums_of(x, scale);
        const float error = error_of<kSub>(sums, m, scale, 0);
        if (error < best.error) best = {s, error, sums};
    }
    return best;
}

Scales rounded(const float* x, const Moments* moms, const float* wanted, float d) {
    Scales scales{stored_scale(d), {}, 0};
    const float stored = f16_to_f32(scales.d);
    for (int j = 0; j < kSubs; ++j) {
        scales.subs[j] = best_sub(x + j * kSub, moms[j], stored, wanted[j]);
        scales.error += scales.subs[j].error;
    }
    return scales;
}

Scales best_scales(const float* x) {
    Moments moms[kSubs];
    float wanted[kSubs], largest = 0;
    for (int j = 0; j < kSubs; ++j) {
        moms[j] = moments<kSub>(x + j * kSub);
        wanted[j] = best_scale<kSub>(x + j * kSub, moms[j], kLow, kHigh, 29.8f, 0.6f, 7).s;
        largest = std::fabs(wanted[j]) > std::fabs(largest) ? wanted[j] : largest;
    }
    Scales best = rounded(x, moms, wanted, largest / -128);
    for (int round = 0; round < 2; ++round) {
        double ss = 0, sx = 0;
        for (const Scaled& sub : best.subs) {
            ss += static_cast<double>(sub.s) * sub.s * sub.sums.qq;
            sx += static_cast<double>(sub.s) * sub.sums.qx;
        }
        if (!(ss > 0)) break;
        const Scales next = rounded(x, moms, wanted, static_cast<float>(sx / ss));
        if (!(next.error < best.error)) break;
        best = next;
    }
    return best;
}

void pack(const uint8_t* codes, uint8_t* low, uint8_t* high) {
    for (int half = 0; half < 2; ++half) {
        const uint8_t* c = codes + 128 * half;
        for (int i = 0; i < 32; ++i) {
            low[64 * half + i] = static_cast<uint8_t>((c[i] & 15) | (c[i + 64] & 15) << 4);
            low[64 * half + 32 + i] = static_cast<uint8_t>((c[i + 32] & 15) | (c[i + 96] & 15) << 4);
            high[32 * half + i] =
                static_cast<uint8_t>(c[i] >> 4 | (c[i + 32] >> 4) << 2 | (c[i + 64] >> 4) << 4 | (c[i + 96] >> 4) << 6);
        }
    }
}

}  // namespace

void encode_q6_k_block(const float* x, uint8_t* block) {
    const Extent extent = extent_of(x, kLen, 128 * 16);
    uint8_t codes[kLen] = {};
    uint16_t d = extent == Extent::zero ? uint16_t{0} : kPoison;
    std::memset(block + 192, 0, kSubs);
    if (extent == Extent::usual) {
        const Scales scales = best_scales(x);
        d = scales.d;
        for (int i = 0; i < kLen; ++i) {
            const float scale = f16_to_f32(d) * static_cast<float>(scales.subs[i / kSub].s);
            const float inverse = scale != 0 ? 1 / scale : 0;
            codes[i] = static_cast<uint8_t>((limited(x[i] * inverse, kLow, kHigh) + kRounder) - kRounder + 32);
        }
        for (int j = 0; j < kSubs; ++j) block[192 + j] = static_cast<uint8_t>(scales.subs[j].s);
    }
    pack(codes, block, block + 128);
    std::memcpy(block + 208, &d, sizeof d);
}

}  // namespace qwick
