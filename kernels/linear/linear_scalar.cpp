// Matrix products: definitions.
#include <algorithm>
#include <cmath>

#include "codec/codec.h"
#include "codec/half.h"
#include "codec/panel.h"
#include "codec/row_block.h"
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

int32_t int_dot(const int8_t* a, const int8_t* b, int64_t n) {
    int32_t sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

struct Quantised {  // one activation row from a block on
    const int8_t* q;
    const float* d;
    const int16_t* sums;
};

// One block of one weight row: total + its dot. Integers are exact; the f32 operations and their order define the
// numerics of decode rows:
//   blocks of 32    total = fma(dot, d dx, total), then fma(-sum, m dx, total)
//   blocks of 256   per 32 columns: main = fma(s dot, dx, main), least = fma(t sum, dx, least), two sub-blocks of 16
//                   being added as integers; then total = fma(d, main, total), fma(-m, least, total)
float add_block(const BlockTraits& traits, const RowBlock& w, const int8_t* codes, const Quantised& x, float total) {
    const float d = scale_of(traits, w), m = traits.has_min ? f16_to_f32(w.m) : 0;
    if (traits.sub_scales == SubScales::none) {
        const int32_t dot = int_dot(codes, x.q, 32), sum = x.sums[0] + x.sums[1];
        total = std::fma(static_cast<float>(dot), d * x.d[0], total);
        return traits.has_min ? std::fma(-static_cast<float>(sum), m * x.d[0], total) : total;
    }
    const int64_t subs = 32 / traits.sub_len;  // in 32 columns
    float main = 0, least = 0;
    for (int64_t b = 0; b < traits.len / 32; ++b) {
        int32_t dots = 0, sums = 0;
        for (int64_t half = 0; half < 2; ++half) {
            const int64_t sub = b * subs + (subs == 2 ? half : 0), at = b * 2 + half;
            dots += w.scales[sub] * int_dot(codes + at * 16, x.q + at * 16, 16);
            if (traits.has_min) sums += w.mins[sub] * x.sums[at];
        }
        main = std::fma(static_cast<float>(dots), x.d[b], main);
        least = std::fma(static_cast<float>(sums), x.d[b], least);
    }
    total = std::fma(d, main, total);
    return traits.has_min ? std::fma(-m, least, total) : total;
}

void dots_of_blocks(const Rows& x, const Weight& w, int64_t begin, int64_t end, float* y, int64_t ldy) {
    const BlockTraits traits = traits_of(w.family);
    for (int64_t row = begin; row < end; ++row) {
        const uint8_t* block = tile_of(w, row);
        for (int64_t i = 0; i < x.m; ++i) y[i * ldy + row - begin] = 0;
        for (int64_t k = 0; k < w.cols; k += traits.len, block += traits.bytes()) {
            RowBlock staged;
            int8_t codes[kMaxBlock];
            load_row(traits, block, row % kTileRows, staged);
            codes_of(traits, staged, codes);
            for (int64_t i = 0; i < x.m; ++i) {
                const int64_t at = i * x.k + k;
                float& total = y[i * ldy + row - begin];
                total = add_block(traits, staged, codes, {x.q + at, x.d + at / 32, x.sums + at / 16}, total);
            }
        }
    }
}

void panel_product(const float* x, int64_t ldx, int64_t m, const Panel& panel, int64_t k_len, bool first, float* y,
                   int64_t ldy) {
    for (int64_t i = 0; i < m; ++i) {
        float* row = y + i * ldy;
        for (int64_t j = 0; first && j < kPanelCols; ++j) row[j] = 0;
        for (int64_t kk = 0; kk < k_len; ++kk) {
            for (int64_t j = 0; j < kPanelCols; ++j) {
                row[j] = std::fma(x[i * ldx + kk], panel.values[kk][j], row[j]);
            }
        }
    }
}

void strip_product(const Strips& x, const Panel* panels, int64_t num_panels, int64_t k_len, bool first, float* y,
                   int64_t ldy) {
    for (int64_t i = 0; i < x.m; ++i) {
        const int64_t strip = i / kStripRows * kStripRows, rows = std::min(x.m - strip, kStripRows);
        const int16_t* q = x.values + strip * k_len + (i - strip) * 2;
        for (int64_t at = 0; at < num_panels * kPanelCols; ++at) {
            const Panel& panel = panels[at / kPanelCols];
            const int64_t j = at % kPanelCols;
            int32_t dot = 0;
            for (int64_t k = 0; k < k_len; ++k) dot += q[k / 2 * rows * 2 + k % 2] * panel.codes[k / 2][j][k % 2];
            float& out = y[i * ldy + at];
            out = std::fma(static_cast<float>(dot), x.scales[i] * panel.scales[j], first ? 0 : out);
        }
    }
}

}  // namespace

void fill_linear(Kernels& table) {
    for (auto& dots : table.dots) dots = dots_of_blocks;
    table.dots[static_cast<int>(Family::f32)] = dots<float, as_it_is>;
    table.dots[static_cast<int>(Family::bf16)] = dots<uint16_t, bf16_to_f32>;
    table.dots[static_cast<int>(Family::f16)] = dots<uint16_t, f16_to_f32>;
    table.panel_product = panel_product;
    table.strip_product = strip_product;
}

}  // namespace qwick::scalar
