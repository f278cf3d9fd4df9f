// Panels of prompt rows from weights that are stored one by one (codec/panel.h), and activations in the same integers.
// Included after simd_<isa>.h.
#pragma once

#include "codec/block_panels_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// kLanes values of a row from column k on.
template <Family family>
inline Vec load_weights(const Weight& w, int64_t row, int64_t k) {
    const int64_t index = row * w.cols + k;
    if constexpr (family == Family::f32) return load(static_cast<const float*>(w.data) + index);
    if constexpr (family == Family::bf16) return load_bf16(static_cast<const uint16_t*>(w.data) + index);
    if constexpr (family == Family::f16) return load_f16(static_cast<const uint16_t*>(w.data) + index);
}

// How to round a row: its scale, and what to multiply by. 0 where all becomes zero.
struct Rounding {
    float scale, inverse;
};

inline Rounding rounding_of(Ints largest) {
    alignas(64) int32_t lanes[kLanes];
    store_ints(lanes, largest);
    int32_t bits = 0;
    for (const int32_t lane : lanes) bits = lane > bits ? lane : bits;
    if (bits >= kInfiniteBits) return {__builtin_nanf(""), 0};
    if (bits < kLeastBits) return {0, 0};
    float amax;
    __builtin_memcpy(&amax, &bits, sizeof amax);
    return {amax / kPanelTop, kPanelTop / amax};
}

// load_at(k): kLanes values from k on, of n.
template <class Load>
inline Rounding rounding_of(int64_t n, Load load_at) {
    Ints largest = splat_ints(0), other = largest;
    for (int64_t k = 0; k < n; k += 2 * kLanes) {
        largest = larger(largest, magnitude(load_at(k)));
        other = larger(other, magnitude(load_at(k + kLanes)));
    }
    return rounding_of(larger(largest, other));
}

template <class Load>
inline void round_row(const Rounding& rounding, int64_t n, int16_t* q, Load load_at) {
    const Vec inverse = splat(rounding.inverse);
    const bool none = rounding.inverse == 0;
    for (int64_t k = 0; k < n; k += 2 * kLanes) {
        store_ints(q + k, none ? splat_ints(0) : narrow(mul(load_at(k), inverse), mul(load_at(k + kLanes), inverse)));
    }
}

// The integers of m rows, kPanelDepth apart, pair by pair.
template <int64_t rows>
inline void interleave(const int16_t* q, int64_t len, int16_t* out) {
    for (int64_t k = 0; k < len; k += 2, out += 2 * rows) {
        for (int64_t r = 0; r < rows; ++r) __builtin_memcpy(out + 2 * r, q + r * kPanelDepth + k, 2 * sizeof *q);
    }
}
template <int64_t rows = kStripRows>
inline void interleave_rows(const int16_t* q, int64_t m, int64_t len, int16_t* out) {
    if (m == rows) return interleave<rows>(q, len, out);
    if constexpr (rows > 1) interleave_rows<rows - 1>(q, m, len, out);
}

void round_strip(const float* const* rows, int64_t m, int64_t k_len, int16_t* strip, float* scales) {
    alignas(64) int16_t q[kStripRows * kPanelDepth];
    for (int64_t i = 0; i < m; ++i) {
        const auto load_at = [x = rows[i]](int64_t k) { return load(x + k); };
        const Rounding rounding = rounding_of(k_len, load_at);
        round_row(rounding, k_len, q + i * kPanelDepth, load_at);
        scales[i] = rounding.scale;
    }
    interleave_rows(q, m, k_len, strip);
}

// Row by row, then pairs are transposed as what they are elsewhere: 32 bits.
template <Family family>
void decode_int_panel(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, Panel& panel) {
    alignas(64) int16_t rows[kPanelCols][kPanelDepth];
    for (int64_t j = 0; j < kPanelCols; ++j) {
        const bool exists = row + j < w.rows;
        const auto load_at = [&w, at = row + j, k_begin](int64_t k) {
            return load_weights<family>(w, at, k_begin + k);
        };
        const Rounding rounding = exists ? rounding_of(k_len, load_at) : Rounding{0, 0};
        round_row(rounding, k_len, rows[j], load_at);
        panel.scales[j] = rounding.scale;
    }
    for (int64_t k = 0; k < k_len; k += 2 * kLanes) {
        Vec pairs[kPanelCols];
        for (int64_t j = 0; j < kPanelCols; ++j) pairs[j] = floats_of(load_ints(rows[j] + k));
        store_transposed(pairs, reinterpret_cast<float*>(panel.codes[k / 2]));
    }
}

void decode_float_panel(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, Panel& panel) {
    const int64_t num_rows = w.rows - row < kPanelCols ? w.rows - row : kPanelCols;
    for (int64_t k = 0; k < k_len; k += kLanes) {
        Vec rows[kPanelCols];
        for (int64_t j = 0; j < kPanelCols; ++j) {
            rows[j] = j < num_rows ? load_weights<Family::f32>(w, row + j, k_begin + k) : zero();
        }
        store_transposed(rows, panel.values[k]);
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
