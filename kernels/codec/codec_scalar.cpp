// How weights and activations are stored and read back: definitions.
#include <cfloat>
#include <cmath>
#include <numeric>

#include "codec/codec.h"
#include "codec/half.h"
#include "codec/row_block.h"
#include "tables.h"

namespace qwick::scalar {
namespace {

// Of the magnitudes; a NaN as soon as a value is infinite or one.
float largest_or_nan(const float* x) {
    float largest = 0, strays = 0;
    for (int64_t i = 0; i < kQuantBlock; ++i) {
        largest = std::fmax(largest, std::fabs(x[i]));
        strays += x[i] - x[i];
    }
    return largest + strays;
}

void quantize_i8(const float* x, int64_t k, int8_t* q, float* d, int16_t* sums) {
    for (int64_t block = 0; block < k / kQuantBlock; ++block) {
        const float* values = x + block * kQuantBlock;
        const float scale = largest_or_nan(values) / 127;
        const bool divides = scale >= FLT_MIN;  // a subnormal scale has too few bits for that
        d[block] = divides ? scale : scale < FLT_MIN ? 0 : NAN;
        for (int64_t i = 0; i < kQuantBlock; ++i) {
            q[block * kQuantBlock + i] = divides ? static_cast<int8_t>(std::lrint(values[i] / scale)) : int8_t{0};
        }
    }
    for (int64_t i = 0; i < k / 16; ++i) {
        sums[i] = static_cast<int16_t>(std::accumulate(q + i * 16, q + (i + 1) * 16, 0));
    }
}

void round_bf16(const float* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = rounded_to_bf16(x[i]);
}

// Element (row, col) of a family of single values, exactly.
template <Family family>
float element(const Weight& w, int64_t row, int64_t col) {
    const int64_t index = row * w.cols + col;
    if constexpr (family == Family::f32) return static_cast<const float*>(w.data)[index];
    if constexpr (family == Family::bf16) return bf16_to_f32(static_cast<const uint16_t*>(w.data)[index]);
    if constexpr (family == Family::f16) return f16_to_f32(static_cast<const uint16_t*>(w.data)[index]);
}

template <Family family>
void decode_panel(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, float* panel) {
    for (int64_t kk = 0; kk < k_len; ++kk) {
        for (int64_t j = 0; j < kPanelCols; ++j) {
            const float value = row + j < w.rows ? element<family>(w, row + j, k_begin + kk) : 0;
            panel[kk * kPanelCols + j] = family == Family::f32 ? value : rounded_to_bf16(value);
        }
    }
}

// Rows past the end are zeros in memory.
void decode_panel_of_blocks(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, float* panel) {
    const BlockTraits traits = traits_of(w.family);
    const uint8_t* block = tile_of(w, row) + k_begin / traits.len * traits.bytes();
    for (int64_t kk = 0; kk < k_len; kk += traits.len, block += traits.bytes()) {
        for (int64_t j = 0; j < kPanelCols; ++j) {
            RowBlock staged;
            float values[kMaxBlock];
            load_row(traits, block, j, staged);
            values_of(traits, staged, values);
            for (int64_t i = 0; i < traits.len; ++i) panel[(kk + i) * kPanelCols + j] = rounded_to_bf16(values[i]);
        }
    }
}

}  // namespace

void fill_codec(Kernels& table) {
    table.quantize_i8 = quantize_i8;
    table.round_bf16 = round_bf16;
    for (int family = 0; family < kNumFamilies; ++family) {
        table.decode_row[family] = decode_memory_row;
        table.decode_panel[family] = decode_panel_of_blocks;
    }
    table.decode_panel[static_cast<int>(Family::f32)] = decode_panel<Family::f32>;
    table.decode_panel[static_cast<int>(Family::bf16)] = decode_panel<Family::bf16>;
    table.decode_panel[static_cast<int>(Family::f16)] = decode_panel<Family::f16>;
}

}  // namespace qwick::scalar
