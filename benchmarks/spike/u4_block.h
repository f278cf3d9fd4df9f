// Q4_K-like blocks in the layout of the spike: rows interleaved by kLanes, one row per 32-bit lane.
#pragma once
#include <cstdint>

#include "bench.h"
#include "int_vec.h"

constexpr int kSuper = 256, kRows = kLanes;

// 256 weights of kRows rows each. Byte r*4+i of a 4-column group vector is row r, column 4*group+i.
struct U4Block {  // w = d * scale * q - m * min
    uint16_t d[kRows], m[kRows];
    uint8_t packed[3][4 * kRows];      // 6-bit scales and mins: see unpack_6bit
    uint8_t nibbles[8][4][4 * kRows];  // per 32 columns, vector j: group j low, group j + 4 high
};
static_assert(sizeof(U4Block) * 8 == kRows * kSuper * 9 / 2, "4.5 bits a weight");

struct Activations {  // int8 per 32, and the sums that carry the offsets
    std::vector<int8_t> x;
    std::vector<float> d;
    std::vector<int> sum32, sum16;
    int k;

    explicit Activations(int k_, unsigned seed = 7) : x(k_), d(k_ / 32), sum32(k_ / 32), sum16(k_ / 16), k(k_) {
        std::mt19937 engine(seed);
        for (int i = 0; i < k; ++i) {
            x[i] = int8_t(int(engine() % 255) - 127);
            sum32[i / 32] += x[i];
            sum16[i / 16] += x[i];
        }
        for (auto& value : d) value = 0.001f + float(engine() % 1000) * 1e-5f;
    }
};

// Four byte vectors from three: the fourth is made of the top 2 bits of the others.
static inline void unpack_6bit(const uint8_t packed[3][4 * kRows], uint8_t out[4][4 * kRows]) {
    Ints mask = splat32(0x3f3f3f3f), two = splat32(0x03030303);
    Ints a = load_ints(packed[0]), b = load_ints(packed[1]), c = load_ints(packed[2]);
    auto put = [out](int i, Ints v) { std::memcpy(out[i], &v, sizeof v); };
    put(0, bits_and(a, mask));
    put(1, bits_and(b, mask));
    put(2, bits_and(c, mask));
    Ints top_b = left<2>(bits_and(right<6>(b), two)), top_c = left<4>(bits_and(right<6>(c), two));
    put(3, bits_or(bits_and(right<6>(a), two), bits_or(top_b, top_c)));
}

static float half_to_float(uint16_t half) {
    return _cvtsh_ss(half);
}

// Scale (index b) or min (index 8 + b) of row r, through the layout's definition.
static int scalar_six(const U4Block& block, int r, int index) {
    int vector = (index * kRows + r) / (4 * kRows), byte = (index * kRows + r) % (4 * kRows);
    auto part = [&](int i) { return block.packed[i][byte]; };
    return vector < 3 ? part(vector) & 63 : part(0) >> 6 | part(1) >> 6 << 2 | part(2) >> 6 << 4;
}

static int scalar_nibble(const U4Block& block, int r, int column) {
    int group = column % 32 / 4, byte = block.nibbles[column / 32][group % 4][r * 4 + column % 4];
    return group < 4 ? byte & 15 : byte >> 4;
}

static inline float scalar_weight(const U4Block* row, int r, int k) {
    const U4Block& block = row[k / kSuper];
    int b = k % kSuper / 32;
    float scale = half_to_float(block.d[r]) * float(scalar_six(block, r, b));
    return std::fma(float(scalar_nibble(block, r, k % kSuper)), scale,
                    -half_to_float(block.m[r]) * float(scalar_six(block, r, 8 + b)));
}

// A decode row's dot, one weight at a time: integer sums per 32 columns, f32 over the blocks in order.
static float scalar_u4(const U4Block* row, int r, const Activations& act) {
    float total = 0;
    for (int s = 0; s < act.k / kSuper; ++s) {
        float main = 0, offset = 0;
        for (int b = 0; b < 8; ++b) {
            int dots = 0, at = s * 8 + b;
            for (int i = 0; i < 32; ++i) dots += scalar_nibble(row[s], r, 32 * b + i) * act.x[at * 32 + i];
            main = std::fma(float(dots * scalar_six(row[s], r, b)), act.d[at], main);
            offset = std::fma(float(scalar_six(row[s], r, 8 + b) * act.sum32[at]), act.d[at], offset);
        }
        total = std::fma(half_to_float(row[s].d[r]), main, total);
        total = std::fma(-half_to_float(row[s].m[r]), offset, total);
    }
    return total;
}

template <class Block>
static void fill_random(Block* blocks, size_t count, uint64_t seed) {
    for (size_t i = 0; i + 8 <= count * sizeof(Block); i += 8) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        std::memcpy(reinterpret_cast<char*>(blocks) + i, &seed, 8);
    }
}

static void make_small(uint16_t* halves) {  // random f16 in 2^-6 .. 2^-5
    for (int r = 0; r < kRows; ++r) halves[r] = uint16_t((halves[r] & 0x3ff) | 0x2400);
}
