// Decode rows: dot products of a few activation rows with many weight rows. Included after simd_<isa>.h and
// math_simd.h.
//
// A tile is M activation rows by R weight rows that share their loads. The order of an output's sum depends on k alone:
// as in dot() of math_simd.h.
#pragma once

#include "linear/inputs_simd.h"
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int kSumParts = 16 / kLanes;  // vectors of running sums per output
constexpr int64_t kCachedRows = 8;      // weight rows that stay in cache while all activation rows pass over them
constexpr int64_t kRowsAhead = 4;       // that are prefetched
// Weight rows of less than a page are read one after another: four at a time, two of them in a page, bf16 of 1,024
// columns came at 20 GB/s instead of 26 on two threads of a Milan; of 3,584 columns it is the other way round.
constexpr int64_t kShortRow = kSumParts > 1 ? 4096 : 0;  // bytes; not measured on AVX-512

// A later row's weights, a cache line per call. Decoding fills the window in which a core looks ahead, so the
// hardware loses the stream: bf16 gains a tenth on one core of a Milan, f32 nothing (it is not decoded).
inline void prefetch(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

template <class Stored>
struct FloatTile {
    static bool is_short(const Weight& w) { return w.cols * static_cast<int64_t>(sizeof(Stored)) < kShortRow; }
    // Eight chains of fma, twelve with three rows of activations.
    static constexpr int rows(int m) { return (m == 3 ? 4 : 8 / m) / kSumParts; }

    template <int M, int R>
    static void run(const Rows& x, const Weight& w, int64_t i, int64_t row, float* y, int64_t ldy) {
        constexpr int64_t kAhead = R > kRowsAhead ? R : kRowsAhead;
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
                    if (sizeof(Stored) < sizeof(float) && part == 0) prefetch(weights + (kAhead + r) * w.cols + at);
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
    const int64_t together = x.m <= 2 && Tile::is_short(w) ? begin : end;
    for (; row + R <= together; row += R) Tile::template run<M, R>(x, w, i, row, y + row - begin, ldy);
    for (; row < end; ++row) Tile::template run<M, 1>(x, w, i, row, y + row - begin, ldy);
}

template <class Tile>
void dots(const Rows& x, const Weight& w, int64_t begin, int64_t end, float* y, int64_t ldy) {
    for (int64_t row = begin; row < end; row += kCachedRows) {
        const int64_t row_end = row + kCachedRows < end ? row + kCachedRows : end;
        for_even_parts(x.m, 4, [&](int64_t i, int64_t m) {
            float* out = y + row - begin + i * ldy;
            if (m == 4) return dots_of_rows<Tile, 4>(x, w, i, row, row_end, out, ldy);
            if (m == 3) return dots_of_rows<Tile, 3>(x, w, i, row, row_end, out, ldy);
            if (m == 2) return dots_of_rows<Tile, 2>(x, w, i, row, row_end, out, ldy);
            dots_of_rows<Tile, 1>(x, w, i, row, row_end, out, ldy);
        });
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
