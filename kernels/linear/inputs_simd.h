// The quantised activations of a pass over blocks. Included after simd_<isa>.h.
#pragma once

#include <cstdint>

namespace qwick::ISA_NAMESPACE {
namespace {

inline Ints splat_four(const int8_t* x) {  // 4 activations, for the 4 columns of a group
    int32_t four;
    __builtin_memcpy(&four, x, sizeof four);
    return splat_ints(four);
}
inline Ints splat_two(const int16_t* x) {
    int32_t two;
    __builtin_memcpy(&two, x, sizeof two);
    return splat_ints(two);
}

// Rows of activations from some column on.
struct Inputs {
    const int8_t* q;
    const float* d;
    const int16_t* sums;
    int64_t k;  // of a whole row

    Inputs from(int64_t column) const { return {q + column, d + column / 32, sums + column / 16, k}; }
    Inputs row(int64_t m) const { return {q + m * k, d + m * (k / 32), sums + m * (k / 16), k}; }
    Vec scale(int m) const { return splat(d[m * (k / 32)]); }
    Ints sums_of_16(int m) const { return splat_two(sums + m * (k / 16)); }
};

// f(first, count) for 0 .. rows - 1 in as few parts of at most `most` rows as there can be, equal ones.
template <class F>
inline void for_even_parts(int64_t rows, int64_t most, F&& f) {
    for (int64_t first = 0, parts = (rows + most - 1) / most; parts > 0; --parts) {
        const int64_t count = (rows - first + parts - 1) / parts;
        f(first, count);
        first += count;
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
