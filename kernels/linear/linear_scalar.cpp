// Matrix products: definitions.
#include <cmath>

#include "codec/half.h"
#include "tables.h"

namespace qwick::scalar {
namespace {

// Sixteen partial sums: nearer to the exact dot than one running sum, and the compiler can use what vectors it has.
template <class Stored, float (*Decode)(Stored)>
float dot(const float* x, const Stored* w, int64_t k) {
    float lanes[16] = {};
    for (int64_t kk = 0; kk < k; kk += 16) {
        for (int64_t j = 0; j < 16; ++j) lanes[j] += x[kk + j] * Decode(w[kk + j]);
    }
    for (int64_t half = 8; half > 0; half /= 2) {
        for (int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
    }
    return lanes[0];
}

float as_it_is(float x) {
    return x;
}

template <class Stored, float (*Decode)(Stored)>
void dots(const Rows& x, const Weight& w, int64_t begin, int64_t end, float* y, int64_t ldy) {
    const auto* data = static_cast<const Stored*>(w.data);
    for (int64_t i = 0; i < x.m; ++i) {
        for (int64_t row = begin; row < end; ++row) {
            y[i * ldy + row - begin] = dot<Stored, Decode>(x.f32 + i * x.ld, data + row * w.cols, w.cols);
        }
    }
}

int32_t block_dot(const int8_t* a, const int8_t* b) {
    int32_t sum = 0;
    for (int64_t i = 0; i < kQuantBlock; ++i) sum += a[i] * b[i];
    return sum;
}

void dots_i8(const Rows& x, const Weight& w, int64_t begin, int64_t end, float* y, int64_t ldy) {
    const int64_t num_blocks = w.cols / kQuantBlock;
    for (int64_t i = 0; i < x.m; ++i) {
        for (int64_t row = begin; row < end; ++row) {
            const auto* data = static_cast<const int8_t*>(w.data) + row * w.cols;
            float sum = 0;
            for (int64_t block = 0; block < num_blocks; ++block) {
                const int32_t dot = block_dot(x.q + i * x.k + block * kQuantBlock, data + block * kQuantBlock);
                const float scale = x.d[i * num_blocks + block] * f16_to_f32(w.scales[row * num_blocks + block]);
                sum = std::fma(static_cast<float>(dot), scale, sum);
            }
            y[i * ldy + row - begin] = sum;
        }
    }
}

void panel_product(const float* x, int64_t ldx, int64_t m, const float* panel, int64_t k_len, bool first, float* y,
                   int64_t ldy) {
    for (int64_t i = 0; i < m; ++i) {
        float* row = y + i * ldy;
        for (int64_t j = 0; first && j < kPanelCols; ++j) row[j] = 0;
        for (int64_t kk = 0; kk < k_len; ++kk) {
            for (int64_t j = 0; j < kPanelCols; ++j) {
                row[j] = std::fma(x[i * ldx + kk], panel[kk * kPanelCols + j], row[j]);
            }
        }
    }
}

}  // namespace

void fill_linear(Kernels& table) {
    table.dots[0] = dots<float, as_it_is>;
    table.dots[1] = dots<uint16_t, bf16_to_f32>;
    table.dots[2] = dots_i8;
    table.panel_product = panel_product;
}

}  // namespace qwick::scalar
