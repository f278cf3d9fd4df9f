// How weights, activations and cache entries are stored and read back: definitions.
#include <cfloat>
#include <cmath>
#include <cstring>

#include "codec/half.h"
#include "tables.h"

namespace qwick::scalar {
namespace {

void quantize_i8(const float* x, int64_t k, int8_t* q, float* d) {
    for (int64_t block = 0; block < k / kQuantBlock; ++block) {
        const float* values = x + block * kQuantBlock;
        float amax = 0;
        for (int64_t i = 0; i < kQuantBlock; ++i) amax = std::fmax(amax, std::fabs(values[i]));
        const float scale = amax / 127;
        const bool zero = scale < FLT_MIN;  // a subnormal scale has too few bits to divide by
        d[block] = zero ? 0 : scale;
        for (int64_t i = 0; i < kQuantBlock; ++i) {
            q[block * kQuantBlock + i] = zero ? 0 : static_cast<int8_t>(std::lrint(values[i] / scale));
        }
    }
}

void round_bf16(const float* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = rounded_to_bf16(x[i]);
}

// Element (row, col) of a weight, exactly.
template <Family family>
float element(const Weight& w, int64_t row, int64_t col) {
    const int64_t index = row * w.cols + col;
    if constexpr (family == Family::f32) return static_cast<const float*>(w.data)[index];
    if constexpr (family == Family::bf16) return bf16_to_f32(static_cast<const uint16_t*>(w.data)[index]);
    if constexpr (family == Family::i8) {
        return static_cast<const int8_t*>(w.data)[index] * f16_to_f32(w.scales[index / kQuantBlock]);
    }
}

template <Family family>
void decode_row(const Weight& w, int64_t row, float* out) {
    for (int64_t col = 0; col < w.cols; ++col) out[col] = element<family>(w, row, col);
}

template <Family family>
void decode_panel(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, float* panel) {
    for (int64_t kk = 0; kk < k_len; ++kk) {
        for (int64_t j = 0; j < kPanelCols; ++j) {
            const float value = row + j < w.rows ? element<family>(w, row + j, k_begin + kk) : 0;
            panel[kk * kPanelCols + j] = family == Family::i8 ? rounded_to_bf16(value) : value;
        }
    }
}

void store_f32(const float* x, int64_t n, void* out) {
    std::memcpy(out, x, sizeof(float) * n);
}

void store_f16(const float* x, int64_t n, void* out) {
    for (int64_t i = 0; i < n; ++i) static_cast<uint16_t*>(out)[i] = f32_to_f16(x[i]);
}

}  // namespace

void fill_codec(Kernels& table) {
    table.quantize_i8 = quantize_i8;
    table.round_bf16 = round_bf16;
    table.decode_row[0] = decode_row<Family::f32>;
    table.decode_row[1] = decode_row<Family::bf16>;
    table.decode_row[2] = decode_row<Family::i8>;
    table.decode_panel[0] = decode_panel<Family::f32>;
    table.decode_panel[1] = decode_panel<Family::bf16>;
    table.decode_panel[2] = decode_panel<Family::i8>;
    table.store_kv[0] = store_f32;
    table.store_kv[1] = store_f16;
}

}  // namespace qwick::scalar
