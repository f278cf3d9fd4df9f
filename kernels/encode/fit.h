// Least squares for one sub-block: which scale (and offset) loses least, over a few candidate roundings.
//
// For given codes q the best scale s and offset a of s * q + a solve two linear equations; for given s and a the best
// codes are the nearest ones. Starting from several spreads of the codes over the values' range, the two alternate.
#pragma once

#include <cmath>
#include <cstdint>

#include "codec/half.h"

namespace qwick {

constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding and taking it away rounds to the nearest even integer

struct Sums {  // over the n values of a sub-block, q their codes
    float q, qq, qx;
};

struct Moments {  // the same values without codes
    float x, xx, low, high;
};

struct Affine {  // s * q + a, and the squared error left
    float s, a, error;
};

// NaN becomes `low`.
inline float limited(float value, float low, float high) {
    value = value > low ? value : low;
    return value < high ? value : high;
}

// The f16 nearest to a scale. Away from zero where f16 has few bits left: a scale too small makes codes too large.
inline uint16_t stored_scale(float s) {
    const uint16_t half = f32_to_f16(s);
    const bool short_of = std::fabs(f16_to_f32(half)) < std::fabs(s) && std::fabs(s) < 0x1p-14f;
    return short_of ? static_cast<uint16_t>(half + 1) : half;
}

// Eight lanes by hand: a compiler may not reorder a plain sum.
inline float total(const float* lanes) {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// Codes of x * inverse + shift in [low, high].
template <int N>
inline Sums code_sums(const float* x, float inverse, float shift, float low, float high) {
    float q_lanes[8] = {}, qq_lanes[8] = {}, qx_lanes[8] = {};
    for (int i = 0; i < N; i += 8) {
        for (int lane = 0; lane < 8; ++lane) {
            const float value = x[i + lane];
            const float q = (limited(value * inverse + shift, low, high) + kRounder) - kRounder;
            q_lanes[lane] += q;
            qq_lanes[lane] += q * q;
            qx_lanes[lane] += q * value;
        }
    }
    return {total(q_lanes), total(qq_lanes), total(qx_lanes)};
}

template <int N>
inline Moments moments(const float* x) {
    float x_lanes[8] = {}, xx_lanes[8] = {};
    Moments m{0, 0, x[0], x[0]};
    for (int i = 0; i < N; i += 8) {
        for (int lane = 0; lane < 8; ++lane) {
            x_lanes[lane] += x[i + lane];
            xx_lanes[lane] += x[i + lane] * x[i + lane];
        }
    }
    for (int i = 0; i < N; ++i) {
        m.low = x[i] < m.low ? x[i] : m.low;
        m.high = x[i] > m.high ? x[i] : m.high;
    }
    m.x = total(x_lanes);
    m.xx = total(xx_lanes);
    return m;
}

// Squared error of s * q + a.
template <int N>
inline float error_of(const Sums& sums, const Moments& m, float s, float a) {
    const double squares =
        static_cast<double>(m.xx) + static_cast<double>(s) * s * sums.qq + static_cast<double>(a) * a * N;
    return static_cast<float>(squares + 2.0 * (static_cast<double>(s) * a * sums.q - static_cast<double>(s) * sums.qx -
                                               static_cast<double>(a) * m.x));
}

// The best s and a <= 0 for the codes behind `sums`.
template <int N>
inline Affine solve_affine(const Sums& sums, const Moments& m) {
    const double determinant = static_cast<double>(N) * sums.qq - static_cast<double>(sums.q) * sums.q;
    float s = 0, a = m.x / N;  // all codes alike
    if (determinant > 0) {
        s = static_cast<float>((static_cast<double>(N) * sums.qx - static_cast<double>(sums.q) * m.x) / determinant);
        s = s > 0 ? s : 0;
        a = (m.x - s * sums.q) / N;
    }
    if (a > 0) {  // the formats store minus the offset as an unsigned number
        a = 0;
        s = sums.qx > 0 ? sums.qx / sums.qq : 0;
    }
    return {s, a, error_of<N>(sums, m, s, a)};
}

// The best s without an offset.
template <int N>
inline Affine solve_scale(const Sums& sums, const Moments& m) {
    const float s = sums.qq > 0 ? sums.qx / sums.qq : 0;
    return {s, 0, error_of<N>(sums, m, s, 0)};
}

// The best scale of either sign for codes in [low, high]: the largest value gets code `nearest`, `nearest` + `step`,
// ...
template <int N>
inline Affine best_scale(const float* x, const Moments& m, float low, float high, float nearest, float step,
                         int steps) {
    const float largest = -m.low > m.high ? m.low : m.high;
    Affine best{0, 0, m.xx};
    if (largest == 0) return best;
    for (int i = 0; i < 2 * steps; ++i) {
        const float code = nearest + step * static_cast<float>(i >> 1);
        const float inverse = (i & 1 ? code : -code) / largest;
        const Affine fit = solve_scale<N>(code_sums<N>(x, inverse, 0, low, high), m);
        if (fit.error < best.error) best = fit;
    }
    for (int round = 0; round < 4 && best.s != 0; ++round) {
        const Affine fit = solve_scale<N>(code_sums<N>(x, 1 / best.s, 0, low, high), m);
        if (!(fit.error < best.error)) break;
        best = fit;
    }
    return best;
}

}  // namespace qwick
