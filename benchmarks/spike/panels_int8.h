// AVX2 has no bf16 unit, but 8-bit products run 4 to a lane: the block dots of decode rows, over a byte panel.
#pragma once

struct Int8Panel {                            // one super-block of kGroups row groups
    uint8_t q[8][8][kGroups][4 * kRows];      // [sub-block][4 columns]
    Ints scale[8][kGroups], min[8][kGroups];  // scale in both halves of a lane, min in the low half
    Vec d[kGroups], m[kGroups];
};

static void decode_int8(const Problem& p, int n, int s, Int8Panel& panel) {
    for (int g = 0; g < kGroups; ++g) {
        const U4Block& block = p.block(n * kGroups + g, s);
        alignas(64) uint8_t six[4][4 * kRows];
        unpack_6bit(block.packed, six);
        panel.d[g] = widen_f16(block.d);
        panel.m[g] = widen_f16(block.m);
        for (int b = 0; b < 8; ++b) {
            Ints scale = widen_u8(six[0] + b * kRows), mask = splat32(0x0f0f0f0f);
            panel.scale[b][g] = bits_or(scale, _mm256_slli_epi32(scale, 16));
            panel.min[b][g] = widen_u8(six[2] + b * kRows);
            for (int j = 0; j < 4; ++j) {
                Ints two = load_ints(block.nibbles[b][j]);
                _mm256_storeu_si256((Ints*)panel.q[b][j][g], bits_and(two, mask));
                _mm256_storeu_si256((Ints*)panel.q[b][j + 4][g], bits_and(right<4>(two), mask));
            }
        }
    }
}

// Activations of one token and 256 columns, side by side.
struct Int8Row {
    int8_t x[kSuper];
    float d[8];
    int sum[8];
};

static std::vector<Int8Row> pack_int8(const Problem& p) {  // [k / 256][token]
    std::vector<Int8Row> rows(size_t(p.k / kSuper) * kTokens);
    for (int s = 0; s < p.k / kSuper; ++s)
        for (int m = 0; m < kTokens; ++m) {
            Int8Row& row = rows[size_t(s) * kTokens + m];
            std::copy_n(p.int8[m].x.data() + s * kSuper, kSuper, row.x);
            std::copy_n(p.int8[m].d.data() + s * 8, 8, row.d);
            for (int b = 0; b < 8; ++b) row.sum[b] = p.int8[m].sum32[s * 8 + b] & 0xffff;
        }
    return rows;
}

template <int MR>
static inline void tile_int8(const Int8Panel& panel, const Int8Row* rows, float* out, int ldc, bool first) {
    Vec main[MR][kGroups], offset[MR][kGroups];
    for (int r = 0; r < MR; ++r)
        for (int g = 0; g < kGroups; ++g) main[r][g] = offset[r][g] = splat(0);
    for (int b = 0; b < 8; ++b) {
        Ints sum16[MR][kGroups] = {};
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j)
#pragma GCC unroll 4
            for (int r = 0; r < MR; ++r) {
                int four;
                std::memcpy(&four, rows[r].x + 32 * b + 4 * j, 4);
#pragma GCC unroll 4
                for (int g = 0; g < kGroups; ++g) {
                    Ints products = _mm256_maddubs_epi16(load_ints(panel.q[b][j][g]), splat32(four));
                    sum16[r][g] = _mm256_add_epi16(sum16[r][g], products);
                    asm("" : "+x"(sum16[r][g]));  // or GCC 12 reassociates the sums into a tree and spills it all
                }
            }
        for (int r = 0; r < MR; ++r) {
            Vec d = splat(rows[r].d[b]);
            Ints sum = splat32(rows[r].sum[b]);
            for (int g = 0; g < kGroups; ++g) {
                main[r][g] = fma(to_float(_mm256_madd_epi16(sum16[r][g], panel.scale[b][g])), d, main[r][g]);
                offset[r][g] = fma(to_float(_mm256_madd_epi16(panel.min[b][g], sum)), d, offset[r][g]);
            }
        }
    }
    for (int r = 0; r < MR; ++r)
        for (int g = 0; g < kGroups; ++g) {
            float* at = out + size_t(r) * ldc + g * kRows;
            Vec total = fma(panel.d[g], main[r][g], first ? splat(0) : load(at));
            store(at, sub(total, mul(panel.m[g], offset[r][g])));
        }
}

template <int MR>
static void run_int8(const Problem& p, const Int8Row* rows, int first, int last) {
    static thread_local Int8Panel panel;
    for (int n = first; n < last; ++n)
        for (int s = 0; s < p.k / kSuper; ++s) {
            decode_int8(p, n, s, panel);
            for (int m = 0; m < kTokens; m += MR)
                tile_int8<MR>(panel, rows + size_t(s) * kTokens + m, p.out + size_t(m) * p.n + n * kPanel, p.n, s == 0);
        }
}
