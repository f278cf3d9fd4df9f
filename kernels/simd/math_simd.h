// What both vector widths compute the same way. simd_<isa>.h includes it at its end.
#pragma once

namespace qwick::ISA_NAMESPACE {
namespace {

// exp of each, within 2 ulp; 0 where the result would be subnormal (x < -87.33), infinity above 88.72, a NaN stays one.
// Cephes expf: 2^n p(r), x = n ln 2 + r; 2^n in two factors because n can be 128. Step by step for all of them: one
// takes 100 cycles, and a core looks ahead over two or three.
template <int N>
inline void exp_each(Vec (&xs)[N]) {
    Vec r[N], p[N];
    Ints n[N];
    const auto each = [](auto step) {
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) step(i);
    };
    each([&](int i) { r[i] = min(splat(89.0f), max(splat(-88.0f), xs[i])); });
    each([&](int i) { n[i] = to_ints(mul(r[i], splat(1.44269504f))); });
    each([&](int i) { r[i] = fnma(to_floats(n[i]), splat(0.693359375f), r[i]); });
    each([&](int i) { r[i] = fnma(to_floats(n[i]), splat(-2.12194440e-4f), r[i]); });
    each([&](int i) { p[i] = fma(splat(1.9875691500e-4f), r[i], splat(1.3981999507e-3f)); });
    each([&](int i) { p[i] = fma(p[i], r[i], splat(8.3334519073e-3f)); });
    each([&](int i) { p[i] = fma(p[i], r[i], splat(4.1665795894e-2f)); });
    each([&](int i) { p[i] = fma(p[i], r[i], splat(1.6666665459e-1f)); });
    each([&](int i) { p[i] = fma(p[i], r[i], splat(5.0000001201e-1f)); });
    each([&](int i) { p[i] = add(fma(p[i], mul(r[i], r[i]), r[i]), splat(1.0f)); });
    each([&](int i) {
        const Ints n_half = half(n[i]);
        const Vec scaled = mul(mul(p[i], power_of_two(n_half)), power_of_two(minus(n[i], n_half)));
        xs[i] = zero_where_less(scaled, xs[i], splat(-87.3365447f));
    });
}
inline Vec exp(Vec x) {
    Vec one[1] = {x};
    exp_each(one);
    return one[0];
}

inline float exp(float x) {
    alignas(64) float lanes[kLanes];
    store(lanes, exp(splat(x)));
    return lanes[0];
}

inline Vec times_sigmoid(Vec x, Vec gate) {
    return div(x, add(splat(1.0f), exp(sub(zero(), gate))));
}
inline Vec silu(Vec x) {
    return times_sigmoid(x, x);
}
template <int N>
inline void silu_each(Vec (&xs)[N]) {
    Vec powers[N];
    for (int i = 0; i < N; ++i) powers[i] = sub(zero(), xs[i]);
    exp_each(powers);
    for (int i = 0; i < N; ++i) xs[i] = div(xs[i], add(splat(1.0f), powers[i]));
}

// Weights of any storage type as floats, kLanes at a time.
struct Bf16 {
    uint16_t bits;
};
struct F16 {
    uint16_t bits;
};
inline Vec load_stored(const float* p) {
    return load(p);
}
inline Vec load_stored(const Bf16* p) {
    return load_bf16(&p->bits);
}
inline Vec load_stored(const F16* p) {
    return load_f16(&p->bits);
}

// Of the magnitudes, n a multiple of kLanes; a NaN as soon as a value is infinite or one.
inline float largest_or_nan(const float* x, int64_t n) {
    Vec largest = zero(), strays = zero();
    for (int64_t i = 0; i < n; i += kLanes) {
        const Vec v = load(x + i);
        largest = max(abs(v), largest);
        strays = add(strays, sub(v, v));
    }
    return reduce_max(largest) + reduce_add(strays);
}

// Sum of a[i] * b[i], n a multiple of 16: sixteen running sums, then the fixed tree.
inline float dot(const float* a, const float* b, int64_t n) {
    constexpr int kParts = 16 / kLanes;
    Vec sums[kParts];
    for (Vec& sum : sums) sum = zero();
    for (int64_t i = 0; i < n; i += 16) {
        for (int part = 0; part < kParts; ++part) {
            const int64_t at = i + part * kLanes;
            sums[part] = fma(load(a + at), load(b + at), sums[part]);
        }
    }
    return reduce_add(kParts == 1 ? sums[0] : add(sums[0], sums[kParts - 1]));
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
