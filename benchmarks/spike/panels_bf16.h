// bf16 pairs for vdpbf16ps (AVX-512 BF16) and for AMX: panel[k / 2][16 n][2]. Two panels of 16 columns at a time.
#pragma once

constexpr int kPairs = kSuper / 2;
using PairPanel = uint32_t[2][kPairs][16];

static void decode_pairs(const Problem& p, int n, int s, PairPanel& panel) {
    for (int half = 0; half < 2; ++half)
        decode_block(p.block(n * 2 + half, s), [&](int k, Ints bits) {
            uint32_t* at = panel[half][k / 2];  // even k first, in the low half of each word
            Ints pair = k % 2 == 0 ? shift_right_32(bits, 16) : bits_or(bits, load_ints(at));
            std::memcpy(at, &pair, sizeof pair);
        });
    // GCC 12 does not say that a tile load reads memory: without this the panel's stores may come after it.
    asm volatile("" ::: "memory");
}

static inline Vec dot_pairs(Vec acc, Ints x, Ints w) {
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)w);
#else  // emulated, for the check only
    auto half = [](Ints v, bool high) {
        Ints bits = high ? bits_and(v, splat32(int(0xffff0000u))) : _mm512_slli_epi32(v, 16);
        Vec out;
        std::memcpy(&out, &bits, 64);
        return out;
    };
    return fma(half(x, false), half(w, false), fma(half(x, true), half(w, true), acc));
#endif
}

template <int MR>
static void run_dpbf16(const Problem& p, int first, int last) {
    alignas(64) static thread_local PairPanel panel;
    for (int n = first; n < last; ++n)
        for (int s = 0; s < p.k / kSuper; ++s) {
            decode_pairs(p, n, s, panel);
            for (int m = 0; m < kTokens; m += MR) {
                float* out = p.out + size_t(m) * p.n + n * 32;
                const uint16_t* x = p.bf16.data() + size_t(m) * p.k + s * kSuper;
                Vec acc[MR][2];
                for (int r = 0; r < MR; ++r)
                    for (int h = 0; h < 2; ++h) acc[r][h] = s == 0 ? splat(0) : load(out + r * p.n + h * 16);
                for (int k = 0; k < kPairs; ++k) {
                    Ints w0 = load_ints(panel[0][k]), w1 = load_ints(panel[1][k]);
#pragma GCC unroll 16
                    for (int r = 0; r < MR; ++r) {
                        int pair;
                        std::memcpy(&pair, x + size_t(r) * p.k + 2 * k, 4);
                        acc[r][0] = dot_pairs(acc[r][0], splat32(pair), w0);
                        acc[r][1] = dot_pairs(acc[r][1], splat32(pair), w1);
                    }
                }
                for (int r = 0; r < MR; ++r)
                    for (int h = 0; h < 2; ++h) store(out + r * p.n + h * 16, acc[r][h]);
            }
        }
}

#if defined(__AMX_BF16__) || defined(SPIKE_SIMDE)
// 32 x 32 outputs in tiles 0..3; A rows in tiles 4, 5; B columns in tiles 6, 7.
static void run_amx(const Problem& p, int first, int last) {
    alignas(64) static thread_local PairPanel panel;
    amx_start();
    for (int n = first; n < last; ++n)
        for (int s = 0; s < p.k / kSuper; ++s) {
            decode_pairs(p, n, s, panel);
            for (int m = 0; m < kTokens; m += 32) {
                float* out = p.out + size_t(m) * p.n + n * 32;
                const int ldc = p.n * 4, lda = p.k * 2;
                if (s == 0) {
                    tile_zero(0);
                    tile_zero(1);
                    tile_zero(2);
                    tile_zero(3);
                } else {
                    tile_load(0, out, ldc);
                    tile_load(1, out + 16, ldc);
                    tile_load(2, out + 16 * p.n, ldc);
                    tile_load(3, out + 16 * p.n + 16, ldc);
                }
                for (int k = 0; k < kSuper; k += 32) {
                    const uint16_t* x = p.bf16.data() + size_t(m) * p.k + s * kSuper + k;
                    tile_load(4, x, lda);
                    tile_load(5, x + size_t(16) * p.k, lda);
                    tile_load(6, panel[0][k / 2], 64);
                    tile_load(7, panel[1][k / 2], 64);
                    tile_dot(0, 4, 6);
                    tile_dot(1, 4, 7);
                    tile_dot(2, 5, 6);
                    tile_dot(3, 5, 7);
                }
                tile_store(0, out, ldc);
                tile_store(1, out + 16, ldc);
                tile_store(2, out + 16 * p.n, ldc);
                tile_store(3, out + 16 * p.n + 16, ldc);
            }
        }
    amx_stop();
}
#endif
