// How weights and activations are stored and read back: definitions.
#include <cfloat>
#include <cmath>
#include <numeric>

#include "codec/codec.h"
#include "codec/panel_scalar.h"
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

}  // namespace

void fill_codec(Kernels& table) {
    table.quantize_i8 = quantize_i8;
    table.prompt_form = int_form;
    table.round_strip = round_strip;
    for (int family = 0; family < kNumFamilies; ++family) {
        table.decode_row[family] = decode_memory_row;
        table.decode_panel[family] = int_panel_of_blocks;
    }
    table.decode_panel[static_cast<int>(Family::f32)] = float_panel;
    table.decode_panel[static_cast<int>(Family::bf16)] = int_panel<Family::bf16>;
    table.decode_panel[static_cast<int>(Family::f16)] = int_panel<Family::f16>;
}

}  // namespace qwick::scalar
