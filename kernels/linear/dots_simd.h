// Decode rows: dot products of a few activation rows with many weight rows. Included after simd_<isa>.h and
// math_simd.h.
//
// A tile is M activation rows by R weight rows that share their loads. The order of an output's sum depends on k alone:
// as in dot() of math_simd.h.
#pragma once

#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int kSumParts = 16 / kLanes;  // vectors of running sums per output
constexpr int64_t kRowsTogether = 8;    // weight rows that stay in cache while all activation rows pass over them

// The next tile's weights, a cache line per call. Decoding fills the window in which a core looks ahead, so the
// hardware loses the stream: i8 gains 1.3 to 1.9 times on one core of a Milan, bf16 a tenth, f32 nothing (it is not
// decoded).
inline void prefetch(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

template <class Stored>
struct FloatTile {
    static constexpr int rows(int m) { return 8 / kSumParts / m > 0 ? 8 / kSumParts / m : 1; }  // eight chains of fma

    template <int M, int R>
    static void run(const Rows& x, const Weight& w, int64_t i, int64_t row, float* y, int64_t ldy) {
        const auto* weights = static_cast<const Stored*>(w.data) + row * w.cols;
        const float* values = x.f32 + i * x.ld;
        Vec sums[M][R][kSumParts];
        for (auto& of_row : sums) {
            for (auto& parts : of_row) {
                for (Vec& part : parts) part = zero();
            }
        }
        for (int64_t k = 0; k < w.cols; k += 16) {
#pragma GCC unroll 2
            for (int part = 0; part < kSumParts; ++part) {
                const int64_t at = k + part * kLanes;
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    if (sizeof(Stored) < sizeof(float) && part == 0) prefetch(weights + (R + r) * w.cols + at);
                    const Vec weight = load_stored(weights + r * w.cols + at);
#pragma GCC unroll 8
                    for (int m = 0; m < M; ++m) {
                        sums[m][r][part] = fma(load(values + m * x.ld + at), weight, sums[m][r][part]);
                    }
                }
            }
        }
        for (int m = 0; m < M; ++m) {
            for (int r = 0; r < R; ++r) {
                const Vec* parts = sums[m][r];
                y[m * ldy + r] = reduce_add(kSumParts == 1 ? parts[0] : add(parts[0], parts[kSumParts - 1]));
            }
        }
    }
};

template <class Tile, int M>
void dots_of_rows(const Rows& x, const Weight& w, int64_t i, int64_t begin, int64_t end, float* y, int64_t ldy) {
    constexpr int R = Tile::rows(M);
    int64_t row = begin;
    for (; row + R <= end; row += R) Tile::template run<M, R>(x, w, i, row, y + row - begin, ldy);
    for (; row < end; ++row) Tile::template run<M, 1>(x, w, i, row, y + row - begin, ldy);
}

template <class Tile>
void dots(const Rows& x, const Weight& w, int64_t begin, int64_t end, float* y, int64_t ldy) {
    for (int64_t row = begin; row < end; row += kRowsTogether) {
        const int64_t row_end = row + kRowsTogether < end ? row + kRowsTogether : end;
        float* out = y + row - begin;
        int64_t i = 0;
        for (; i + 4 <= x.m; i += 4) dots_of_rows<Tile, 4>(x, w, i, row, row_end, out + i * ldy, ldy);
        for (; i + 2 <= x.m; i += 2) dots_of_rows<Tile, 2>(x, w, i, row, row_end, out + i * ldy, ldy);
        for (; i < x.m; ++i) dots_of_rows<Tile, 1>(x, w, i, row, row_end, out + i * ldy, ldy);
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
