// Question (b): one decode step's bytes as integer block dots: 57 % of the weight bytes in Q6_K-like blocks (6.5625
// bits a weight), 43 % in Q4_K-like blocks (4.5 bits), and the delta layers' f32 state, 531 MB in all, against a plain
// read of as many bytes. Rows are interleaved by kLanes, one row per 32-bit lane, so there are no horizontal sums.
#include "bench.h"
#include "u4_block.h"

struct U6Block {  // w = d * scale * (q - 32), one scale per 16 columns
    uint16_t d[kRows];
    int8_t scale[16][kRows];
    uint8_t low[16][2][4 * kRows];  // vector j: group 2j low nibble, group 2j + 1 high
    uint8_t high[16][4 * kRows];    // 2 bits for each of the 4 groups
};
static_assert(sizeof(U6Block) == kRows * 210, "6.5625 bits a weight");

// Asks for line `index` of the block kAhead blocks further on. The hardware prefetcher alone loses the stream: the
// block work fills the reorder window long before the next misses are reached.
template <int kAhead, class Block>
static inline void prefetch_line(const Block& block, int index) {
    constexpr int lines = (sizeof(Block) + 63) / 64;
    const char* later = reinterpret_cast<const char*>(&block + kAhead);
    if (kAhead > 0 && index < lines) __builtin_prefetch(later + 64 * index);
}

template <int kAhead>
static inline Vec u4_dot(const U4Block& block, const Activations& act, int column, Vec total) {
    alignas(64) uint8_t six[4][4 * kRows];  // scales of 8 sub-blocks, then mins
    unpack_6bit(block.packed, six);
    const uint8_t *scale = six[0], *min = six[2];
    Vec main = splat(0), offset = splat(0);
    for (int b = 0; b < 8; ++b) {
        constexpr int lines = sizeof(U4Block) / 64 / 8 + 1;
        for (int line = 0; line < lines; ++line) prefetch_line<kAhead>(block, lines * b + line);
        Ints w[8], mask = splat32(0x0f0f0f0f);
        for (int j = 0; j < 4; ++j) {
            Ints two = load_ints(block.nibbles[b][j]);
            w[j] = bits_and(two, mask);
            w[j + 4] = bits_and(right<4>(two), mask);
        }
        int at = column / 32 + b;
        Ints dots =
            scaled_dot<8, 15>(w, (const signed char*)act.x.data() + column + 32 * b, widen_u8(scale + b * kRows));
        main = fma(to_float(dots), splat(act.d[at]), main);
        offset = fma(to_float(mul32(widen_u8(min + b * kRows), splat32(act.sum32[at]))), splat(act.d[at]), offset);
    }
    total = fma(widen_f16(block.d), main, total);
    return sub(total, mul(widen_f16(block.m), offset));
}

template <int kAhead>
static inline Vec u6_dot(const U6Block& block, const Activations& act, int column, Vec total) {
    Vec main = splat(0);
    Ints low_mask = splat32(0x0f0f0f0f), high_mask = splat32(0x30303030);
    for (int b = 0; b < 16; ++b) {
        constexpr int lines = sizeof(U6Block) / 64 / 16 + 1;
        for (int line = 0; line < lines; ++line) prefetch_line<kAhead>(block, lines * b + line);
        Ints low0 = load_ints(block.low[b][0]), low1 = load_ints(block.low[b][1]), high = load_ints(block.high[b]);
        Ints w[4] = {bits_or(bits_and(low0, low_mask), bits_and(left<4>(high), high_mask)),
                     bits_or(bits_and(right<4>(low0), low_mask), bits_and(left<2>(high), high_mask)),
                     bits_or(bits_and(low1, low_mask), bits_and(high, high_mask)),
                     bits_or(bits_and(right<4>(low1), low_mask), bits_and(right<2>(high), high_mask))};
        Ints scale = widen_i8(block.scale[b]);
        Ints dots = scaled_dot<4, 63>(w, (const signed char*)act.x.data() + column + 16 * b, scale);
        dots = sub32(dots, mul32(scale, splat32(32 * act.sum16[column / 16 + b])));
        main = fma(to_float(dots), splat(act.d[column / 32 + b / 2]), main);
    }
    return fma(widen_f16(block.d), main, total);
}

// As scalar_u4.
static float scalar_u6(const U6Block* row, int r, const Activations& act) {
    float total = 0;
    for (int s = 0; s < act.k / kSuper; ++s) {
        float main = 0;
        for (int b = 0; b < 16; ++b) {
            int dots = 0, at = s * 16 + b;
            for (int i = 0; i < 16; ++i) {
                int group = i / 4, byte = r * 4 + i % 4, low = row[s].low[b][group / 2][byte];
                int q = (group % 2 ? low >> 4 : low & 15) | (row[s].high[b][byte] >> 2 * group & 3) << 4;
                dots += (q - 32) * act.x[at * 16 + i];
            }
            main = std::fma(float(dots * row[s].scale[b][r]), act.d[at / 2], main);
        }
        total = std::fma(half_to_float(row[s].d[r]), main, total);
    }
    return total;
}

#include "decode_stream_main.h"
