// How weights and activations are stored and read back. Included after simd_<isa>.h.
#include "codec/value_panels_simd.h"
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr float kSmallestNormal = 1.17549435e-38f;

void quantize_block(const float* x, int8_t* q, float* d) {
    const float scale = largest_or_nan(x, kQuantBlock) / 127.0f;
    if (!(scale >= kSmallestNormal)) {  // too few bits to divide by, or no number
        *d = scale < kSmallestNormal ? 0.0f : __builtin_nanf("");
        for (int64_t i = 0; i < kQuantBlock; ++i) q[i] = 0;
        return;
    }
    *d = scale;
    for (int64_t i = 0; i < kQuantBlock; i += kLanes) store_i8(q + i, div(load(x + i), splat(scale)));
}

// As unsigned bytes: psadbw sums eight of them, and each was 128 larger.
inline int16_t sum_of_16(const int8_t* q) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
    const __m128i halves = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8(-128)), _mm_setzero_si128());
    const __m128i sum = _mm_add_epi64(halves, _mm_unpackhi_epi64(halves, halves));
    return static_cast<int16_t>(_mm_cvtsi128_si32(sum) - 16 * 128);
}

void quantize_i8(const float* x, int64_t k, int8_t* q, float* d, int16_t* sums) {
    for (int64_t block = 0; block < k / kQuantBlock; ++block) {
        int8_t* quants = q + block * kQuantBlock;
        quantize_block(x + block * kQuantBlock, quants, d + block);
        for (int half = 0; half < 2; ++half) sums[2 * block + half] = sum_of_16(quants + 16 * half);
    }
}

template <Family family>
void decode_row(const Weight& w, int64_t row, float* out) {
    for (int64_t k = 0; k < w.cols; k += kLanes) store(out + k, load_weights<family>(w, row, k));
}

template <Family family>
void fill_values(Kernels& table) {
    table.decode_row[static_cast<int>(family)] = decode_row<family>;
    table.decode_panel[static_cast<int>(family)] = decode_int_panel<family>;
}

template <int first>
void fill_block_panels(Kernels& table) {
    if constexpr (first < kNumFamilies) {
        table.decode_panel[first] = decode_block_panel<static_cast<Family>(first)>;
        fill_block_panels<first + 1>(table);
    }
}

}  // namespace

void fill_codec(Kernels& table) {
    table.quantize_i8 = quantize_i8;
    table.round_strip = round_strip;
    fill_values<Family::f32>(table);
    fill_values<Family::bf16>(table);
    fill_values<Family::f16>(table);
    table.decode_panel[static_cast<int>(Family::f32)] = decode_float_panel;
    fill_block_panels<static_cast<int>(Family::i8)>(table);
}

}  // namespace qwick::ISA_NAMESPACE
