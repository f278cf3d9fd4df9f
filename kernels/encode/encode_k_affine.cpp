// Q4_K and Q5_K: 8 sub-blocks of 32 values, d * s * q - dmin * m: s and m of 6 bits, d and dmin f16.
//
// First each sub-block alone finds its best scale and offset. Then these are rounded to 6 bits: of the neighbouring
// pairs the one with the least error, and d and dmin are solved for again, given all the codes.
#include <cstring>

#include "codec/half.h"
#include "encode/encode_blocks.h"
#include "encode/fit.h"

namespace qwick {
namespace {

constexpr int kSub = 32, kSubs = 8, kLen = kSub * kSubs;
constexpr int kMaxSubScale = 63;

struct Pair {
    int s, m;
    float error;
    Sums sums;
};

struct Scales {
    uint16_t d, dmin;
    Pair pairs[kSubs];
    float error;
};

// The codes in [0, top] of sub-block x that d * s and dmin * m ask for.
Sums sums_of(const float* x, float scale, float offset, float top) {
    const float inverse = scale != 0 ? 1 / scale : 0;
    return code_sums<kSub>(x, inverse, offset * inverse, 0, top);
}

Affine best_affine(const float* x, const Moments& m, float top) {
    const float low = m.low < 0 ? m.low : 0, range = m.high - low;
    Affine best = solve_affine<kSub>({0, 0, 0}, m);
    if (!(range > 0)) return best;
    for (int step = 0; step <= 8; ++step) {  // codes that the range covers
        const float spread = top - 1.3f + 0.35f * static_cast<float>(step), inverse = spread / range;
        for (int phase = 0; phase < 2; ++phase) {
            const float shift = -low * inverse - 0.5f * static_cast<float>(phase);
            const Affine fit = solve_affine<kSub>(code_sums<kSub>(x, inverse, shift, 0, top), m);
            if (fit.error < best.error) best = fit;
        }
    }
    for (int round = 0; round < 4 && best.s > 0; ++round) {
        const Affine fit = solve_affine<kSub>(sums_of(x, best.s, -best.a, top), m);
        if (!(fit.error < best.error)) break;
        best = fit;
    }
    return best;
}

int nearest(float value, int high) {
    const float rounded = (limited(value, 0, static_cast<float>(high)) + kRounder) - kRounder;
    return static_cast<int>(rounded);
}

// The best 6-bit pair near (s, m), which are in units of d and dmin.
Pair best_pair(const float* x, const Moments& mom, float d, float dmin, const Affine& wanted, float top) {
    const float inverse = d > 0 ? 1 / d : 0, inverse_min = dmin > 0 ? 1 / dmin : 0;
    const int s0 = nearest(wanted.s * inverse, kMaxSubScale);
    Pair best{0, 0, mom.xx, {}};
    for (int s = s0 > 0 ? s0 - 1 : 0; s <= s0 + 1 && s <= kMaxSubScale; ++s) {
        // Where the middle of the codes stays when the scale changes: keep the best offset for about these codes.
        const float scale = d * static_cast<float>(s);
        const Sums about = sums_of(x, scale, -wanted.a, top);
        const float offset = limited((scale * about.q - mom.x) / kSub, 0, dmin * kMaxSubScale);
        const int m0 = nearest(offset * inverse_min, kMaxSubScale);
        for (int m = m0 > 0 ? m0 - 1 : 0; m <= m0 + 1 && m <= kMaxSubScale; ++m) {
            const float min = dmin * static_cast<float>(m);
            const Sums sums = sums_of(x, scale, min, top);
            const float error = error_of<kSub>(sums, mom, scale, -min);
            if (error < best.error) best = {s, m, error, sums};
        }
    }
    return best;
}

Scales rounded(const float* x, const Moments* moms, const Affine* wanted, float d, float dmin, float top) {
    Scales scales{stored_scale(d), stored_scale(dmin), {}, 0};
    const float unit = f16_to_f32(scales.d), unit_min = f16_to_f32(scales.dmin);
    for (int j = 0; j < kSubs; ++j) {
        scales.pairs[j] = best_pair(x + j * kSub, moms[j], unit, unit_min, wanted[j], top);
        scales.error += scales.pairs[j].error;
    }
    return scales;
}

// d and dmin that are best for the codes and 6-bit numbers of `scales`.
bool solve_super(const Scales& scales, const Moments* moms, float* d, float* dmin) {
    double ss = 0, sm = 0, mm = 0, sx = 0, mx = 0;
    for (int j = 0; j < kSubs; ++j) {
        const Pair& p = scales.pairs[j];
        ss += static_cast<double>(p.s) * p.s * p.sums.qq;
        sm += static_cast<double>(p.s) * p.m * p.sums.q;
        mm += static_cast<double>(p.m) * p.m * kSub;
        sx += static_cast<double>(p.s) * p.sums.qx;
        mx += static_cast<double>(p.m) * moms[j].x;
    }
    const double determinant = ss * mm - sm * sm;
    const bool both = determinant > 1e-9 * ss * mm;
    *d = static_cast<float>(both ? (sx * mm - sm * mx) / determinant : ss > 0 ? sx / ss : 0);
    *dmin = static_cast<float>(both ? (sx * sm - ss * mx) / determinant : mm > 0 && ss == 0 ? -mx / mm : *dmin);
    return *d >= 0 && *dmin >= 0;
}

Scales best_scales(const float* x, float top) {
    Moments moms[kSubs];
    Affine wanted[kSubs];
    float largest = 0, largest_min = 0;
    for (int j = 0; j < kSubs; ++j) {
        moms[j] = moments<kSub>(x + j * kSub);
        wanted[j] = best_affine(x + j * kSub, moms[j], top);
        largest = wanted[j].s > largest ? wanted[j].s : largest;
        largest_min = -wanted[j].a > largest_min ? -wanted[j].a : largest_min;
    }
    float d = largest / kMaxSubScale, dmin = largest_min / kMaxSubScale;
    Scales best = rounded(x, moms, wanted, d, dmin, top);
    for (int round = 0; round < 2 && solve_super(best, moms, &d, &dmin); ++round) {
        const Scales next = rounded(x, moms, wanted, d, dmin, top);
        if (!(next.error < best.error)) break;
        best = next;
    }
    return best;
}

// 6-bit numbers of 8 sub-blocks in 12 bytes: the first four whole, the upper two bits of the others above them.
void pack_scales(const Pair* pairs, uint8_t* packed) {
    for (int j = 0; j < 4; ++j) {
        const Pair &low = pairs[j], &high = pairs[j + 4];
        packed[j] = static_cast<uint8_t>(low.s | (high.s >> 4) << 6);
        packed[j + 4] = static_cast<uint8_t>(low.m | (high.m >> 4) << 6);
        packed[j + 8] = static_cast<uint8_t>((high.s & 15) | (high.m & 15) << 4);
    }
}

// Scales into the block's first 16 bytes, codes into `codes`.
void encode_super(const float* x, float top, uint8_t* block, uint8_t* codes) {
    const Extent extent = extent_of(x, kLen, kMaxSubScale / 4);
    std::memset(codes, 0, kLen);
    std::memset(block, 0, 16);
    if (extent == Extent::zero) return;
    uint16_t halves[2] = {kPoison, kPoison};
    if (extent == Extent::usual) {
        const Scales scales = best_scales(x, top);
        halves[0] = scales.d;
        halves[1] = scales.dmin;
        const float d = f16_to_f32(scales.d), dmin = f16_to_f32(scales.dmin);
        pack_scales(scales.pairs, block + 4);
        for (int i = 0; i < kLen; ++i) {
            const Pair& p = scales.pairs[i / kSub];
            const float scale = d * static_cast<float>(p.s), min = dmin * static_cast<float>(p.m);
            const float inverse = scale != 0 ? 1 / scale : 0;
            codes[i] = static_cast<uint8_t>((limited(x[i] * inverse + min * inverse, 0, top) + kRounder) - kRounder);
        }
    }
    std::memcpy(block, halves, sizeof halves);
}

// Of each 64 codes the first 32 in the low nibbles.
void pack_nibbles(const uint8_t* codes, uint8_t* packed) {
    for (int i = 0; i < kLen / 2; ++i) {
        const uint8_t* pair = codes + i / 32 * 64 + i % 32;
        packed[i] = static_cast<uint8_t>((pair[0] & 15) | pair[32] << 4);
    }
}

}  // namespace

void encode_q4_k_block(const float* x, uint8_t* block) {
    uint8_t codes[kLen];
    encode_super(x, 15, block, codes);
    pack_nibbles(codes, block + 16);
}

void encode_q5_k_block(const float* x, uint8_t* block) {
    uint8_t codes[kLen];
    encode_super(x, 31, block, codes);
    std::memset(block + 16, 0, 32);
    for (int i = 0; i < kLen; ++i) block[16 + i % 32] |= static_cast<uint8_t>((codes[i] >> 4) << (i / 32));
    pack_nibbles(codes, block + 48);
}

}  // namespace qwick
