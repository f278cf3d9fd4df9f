// Panels of prompt rows: definitions. Included by codec_scalar.cpp; see codec/panel.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "codec/codec.h"
#include "codec/half.h"
#include "codec/panel.h"
#include "codec/row_block.h"

namespace qwick::scalar {
namespace {

int32_t bits_of_magnitude(float x) {
    x = std::fabs(x);
    int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// Running maximum of magnitudes; a NaN is larger than infinity.
struct Largest {
    int32_t bits = 0;

    void see(float x) { bits = std::max(bits, bits_of_magnitude(x)); }
    float value() const {
        float x;
        std::memcpy(&x, &bits, sizeof x);
        return x;
    }
    bool usable() const { return kLeastBits <= bits && bits < kInfiniteBits; }
    float scale_without() const { return bits < kInfiniteBits ? 0 : std::nanf(""); }  // of a row that is not usable
};

int16_t rounded(float x) {
    return static_cast<int16_t>(std::lrint(x));
}

// (a b + 2^14) >> 15
int16_t mul_round(int32_t a, int32_t b) {
    return static_cast<int16_t>((a * b + (1 << 14)) >> 15);
}

float quantize_i16(const float* x, int64_t n, int16_t* q) {
    Largest largest;
    for (int64_t i = 0; i < n; ++i) largest.see(x[i]);
    const float inverse = largest.usable() ? kPanelTop / largest.value() : 0;
    for (int64_t i = 0; i < n; ++i) q[i] = largest.usable() ? rounded(x[i] * inverse) : int16_t{0};
    return largest.usable() ? largest.value() / kPanelTop : largest.scale_without();
}

PromptForm int_form() {
    return kIntForm;
}

void round_strip(const float* const* rows, int64_t m, int64_t k_len, int16_t* strip, float* scales) {
    for (int64_t i = 0; i < m; ++i) {
        int16_t q[kPanelDepth];
        scales[i] = quantize_i16(rows[i], k_len, q);
        for (int64_t k = 0; k < k_len; ++k) strip[(k / 2 * m + i) * 2 + k % 2] = q[k];
    }
}

// Element (row, col) of a family of single values, exactly.
template <Family family>
float element(const Weight& w, int64_t row, int64_t col) {
    const int64_t index = row * w.cols + col;
    if constexpr (family == Family::f32) return static_cast<const float*>(w.data)[index];
    if constexpr (family == Family::bf16) return bf16_to_f32(static_cast<const uint16_t*>(w.data)[index]);
    if constexpr (family == Family::f16) return f16_to_f32(static_cast<const uint16_t*>(w.data)[index]);
}

void float_panel(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, Panel& panel) {
    for (int64_t kk = 0; kk < k_len; ++kk) {
        for (int64_t j = 0; j < kPanelCols; ++j) {
            panel.values[kk][j] = row + j < w.rows ? element<Family::f32>(w, row + j, k_begin + kk) : 0;
        }
    }
}

void put(Panel& panel, int64_t row, int64_t k, int16_t value) {
    panel.codes[k / 2][row][k % 2] = value;
}

template <Family family>
void int_panel(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, Panel& panel) {
    for (int64_t j = 0; j < kPanelCols; ++j) {
        float values[kPanelDepth] = {};
        int16_t q[kPanelDepth];
        for (int64_t k = 0; row + j < w.rows && k < k_len; ++k) values[k] = element<family>(w, row + j, k_begin + k);
        panel.scales[j] = quantize_i16(values, k_len, q);
        for (int64_t k = 0; k < k_len; ++k) put(panel, j, k, q[k]);
    }
}

// One weight row of a panel of blocks: per sub-block a and b, and all codes less their zero point.
struct PanelRow {
    int64_t num_subs = 0;
    float a[kPanelDepth / 16], b[kPanelDepth / 16];
    int8_t codes[kPanelDepth];

    PanelRow(const BlockTraits& traits, const uint8_t* block, int64_t row, int64_t k_len) {
        for (int64_t k = 0; k < k_len; k += traits.len, block += traits.bytes()) {
            RowBlock staged{};
            load_row(traits, block, row, staged);
            codes_of(traits, staged, codes + k);
            const bool plain = traits.sub_scales == SubScales::none;
            for (int64_t sub = 0; sub < traits.num_subs(); ++sub, ++num_subs) {
                const float m = traits.has_min ? f16_to_f32(staged.m) : 0;
                a[num_subs] = plain ? scale_of(traits, staged) : scale_of(traits, staged) * staged.scales[sub];
                b[num_subs] = plain || !traits.has_min ? m : m * staged.mins[sub];
            }
        }
    }
};

float round_scaled_codes(const BlockTraits& traits, const PanelRow& row, Panel& panel, int64_t j) {
    const CodeRange range = code_range(traits);
    Largest largest;
    for (int64_t sub = 0; sub < row.num_subs; ++sub) largest.see(row.a[sub]);
    Largest bound;
    bound.see(static_cast<float>(range.top) * largest.value());
    const float inverse = bound.usable() ? 128 * kPanelTop / bound.value() : 0;
    for (int64_t k = 0; k < row.num_subs * traits.sub_len; ++k) {
        const int32_t a = bound.usable() ? rounded(row.a[k / traits.sub_len] * inverse) : 0;
        put(panel, j, k, mul_round(row.codes[k] * (1 << range.shift), a));
    }
    return bound.usable() ? bound.value() / kPanelTop : bound.scale_without();
}

float round_codes_with_minima(const BlockTraits& traits, const PanelRow& row, Panel& panel, int64_t j) {
    const CodeRange range = code_range(traits);
    const auto unit = static_cast<float>(range.unit());
    Largest wide, tight;
    for (int64_t sub = 0; sub < row.num_subs; ++sub) {
        wide.see(unit * std::fabs(row.a[sub]) + std::fabs(row.b[sub]));
        tight.see(static_cast<float>(range.high) * row.a[sub] - row.b[sub]);
        tight.see(row.b[sub] == 0 ? static_cast<float>(range.low) * row.a[sub] : row.b[sub]);
    }
    const float inverse = wide.usable() ? kWideTop / wide.value() : 0;
    const float last = wide.usable() ? std::nearbyint(kPanelTop * 32768 / (tight.value() * inverse)) : 0;
    for (int64_t k = 0; k < row.num_subs * traits.sub_len; ++k) {
        const int64_t sub = k / traits.sub_len;
        const int32_t a = wide.usable() ? rounded(row.a[sub] * (unit * inverse)) : 0;
        const int32_t b = wide.usable() ? rounded(row.b[sub] * inverse) : 0;
        const auto fine = static_cast<int16_t>(mul_round(row.codes[k] * (1 << range.shift), a) - b);
        put(panel, j, k, mul_round(fine, static_cast<int32_t>(last)));
    }
    return wide.usable() ? 32768 / (last * inverse) : wide.scale_without();
}

// Rows past the end are zeros in memory.
void int_panel_of_blocks(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, Panel& panel) {
    const BlockTraits traits = traits_of(w.family);
    const uint8_t* block = tile_of(w, row) + k_begin / traits.len * traits.bytes();
    for (int64_t j = 0; j < kPanelCols; ++j) {
        const PanelRow values(traits, block, j, k_len);
        panel.scales[j] = (traits.has_min ? round_codes_with_minima : round_scaled_codes)(traits, values, panel, j);
    }
}

}  // namespace
}  // namespace qwick::scalar
