// Question (c): prompt rows. out[512][N] = x[512][K] W^T with W in Q4_K-like blocks, decoded once per 512 rows:
//   f32 panel    weights rounded to bf16, held as f32 [k][n]; a register tile of rows x vectors accumulates by fma
//   bf16 panel   the same weights as bf16 pairs [k / 2][n][2], for vdpbf16ps and AMX (16 lanes only)
//   int8 panel   weights as bytes [k / 4][n][4] against int8 activations, the arithmetic of decode rows (AVX2 only)
#include "u4_block.h"
#if SPIKE_LANES == 16
#include "amx.h"
#endif

constexpr int kTokens = 512, kPanel = 16;  // columns of a panel
constexpr int kGroups = kPanel / kRows;    // row groups of W in a panel

// x rounded to bf16, as f32, in strips of MR rows: [K / 256][strip][256][MR]. K is cut in 256s so that a panel
// (16 KiB) stays in L1; sums still run over k in order.
template <int MR>
static void pack_strips(const float* x, int k_len, float* packed) {
    for (int k0 = 0; k0 < k_len; k0 += kSuper)
        for (int m0 = 0; m0 < kTokens; m0 += MR)
            for (int k = 0; k < kSuper; ++k)
                for (int r = 0; r < MR; ++r) *packed++ = m0 + r < kTokens ? x[size_t(m0 + r) * k_len + k0 + k] : 0.0f;
}

static inline Ints round_bf16(Vec v) {  // round to nearest even, low half cleared
    Ints bits;
    std::memcpy(&bits, &v, sizeof bits);
#if SPIKE_LANES == 16
    Ints odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), splat32(1));
#else
    Ints odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), splat32(1));
#endif
    return bits_and(add32(bits, add32(odd, splat32(0x7fff))), splat32(int(0xffff0000u)));
}

// Calls put(k, weights of this group's rows, rounded to bf16 in the high half of each lane).
template <class Put>
static inline void decode_block(const U4Block& block, Put put) {
    alignas(64) uint8_t six[4][4 * kRows];
    unpack_6bit(block.packed, six);
    Vec d = widen_f16(block.d), m = mul(splat(-1), widen_f16(block.m));
    for (int b = 0; b < 8; ++b) {
        Vec scale = mul(d, to_float(widen_u8(six[0] + b * kRows))),
            min = mul(m, to_float(widen_u8(six[2] + b * kRows)));
        for (int j = 0; j < 4; ++j) {
            Ints bytes = load_ints(block.nibbles[b][j]);
            for (int i = 0; i < 4; ++i) {
                Ints low = bits_and(shift_right_32(bytes, 8 * i), splat32(15));
                Ints high = bits_and(shift_right_32(bytes, 8 * i + 4), splat32(15));
                put(32 * b + 4 * j + i, round_bf16(fma(to_float(low), scale, min)));
                put(32 * b + 4 * (j + 4) + i, round_bf16(fma(to_float(high), scale, min)));
            }
        }
    }
}

// out[MR][NV vectors] (+)= strip[256][MR] * panel[256][ldb]
template <int MR, int NV>
static inline void tile_f32(const float* strip, const float* panel, float* out, int ldc, int rows, bool first) {
    Vec acc[MR][NV];
    for (int r = 0; r < MR; ++r)
        for (int v = 0; v < NV; ++v) acc[r][v] = first || r >= rows ? splat(0) : load(out + r * ldc + v * kLanes);
    for (int k = 0; k < kSuper; ++k) {
        Vec w[NV];
        for (int v = 0; v < NV; ++v) w[v] = load(panel + k * NV * kLanes + v * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < MR; ++r) {
            Vec x = splat(strip[k * MR + r]);
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) acc[r][v] = fma(x, w[v], acc[r][v]);
        }
    }
    for (int r = 0; r < std::min(MR, rows); ++r)
        for (int v = 0; v < NV; ++v) store(out + r * ldc + v * kLanes, acc[r][v]);
}

struct Problem {
    int k, n;
    U4Block* w;      // [n / kRows][k / 256]
    const float* x;  // [512][k], already bf16 values
    std::vector<Activations> int8;
    std::vector<uint16_t> bf16;  // x, row major
    float* out;
    const U4Block& block(int group, int super) const { return w[size_t(group) * (k / kSuper) + super]; }
};

// Panels first .. last, of NV vectors each.
template <int MR, int NV>
static void run_f32(const Problem& p, const float* strips, int first, int last) {
    constexpr int width = NV * kLanes, groups = width / kRows, num_strips = (kTokens + MR - 1) / MR;
    alignas(64) static thread_local float panel[kSuper * width];
    for (int n = first; n < last; ++n)
        for (int s = 0; s < p.k / kSuper; ++s) {
            for (int g = 0; g < groups; ++g)
                decode_block(p.block(n * groups + g, s),
                             [&](int k, Ints bits) { std::memcpy(panel + k * width + g * kRows, &bits, sizeof bits); });
            for (int m = 0; m < num_strips; ++m)
                tile_f32<MR, NV>(strips + (size_t(s) * num_strips + m) * kSuper * MR, panel,
                                 p.out + size_t(m) * MR * p.n + n * width, p.n, kTokens - m * MR, s == 0);
        }
}

#if SPIKE_LANES == 16
#include "panels_bf16.h"
#else
#include "panels_int8.h"
#endif
#include "panels_main.h"
