// Tiles of AMX: eight registers, each 16 rows of 64 bytes here, and the product of two of them that hold bf16.
//
//   Tiles t;                     configures them for this thread; released at the end of the scope
//   tile_zero<c>()               all zeros
//   tile_load<a>(p, stride)      row i from p + i * stride bytes
//   tile_store<c>(p, stride)
//   tile_dot<c, a, b>()          c[16][16] f32 += a[16][16 pairs] * b[16 pairs][16][2], of bf16
//
// A Tiles is made by each leaf call that uses tiles: configuring costs some tens of cycles, a call takes tens of
// thousands, and a thread that holds none lets the kernel leave 8 KiB out of each of its context switches. A dot counts
// denormals as zeros, rounds to nearest even, raises nothing, and never looks at MXCSR (Intel's manual, TDPBF16PS):
// even and odd products each are a chain of fused multiply-adds over the 16 pairs, from zero; c += even + odd.
//
// Inline assembly where there are intrinsics, because GCC 12's take tile numbers from macros only, believe that a
// configuration is 8 bytes, and do not say that a load reads memory. Built with QWICK_EMULATE: the same in plain C++.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef QWICK_EMULATE
#include <immintrin.h>
#endif

namespace qwick::amx {
namespace {

constexpr int64_t kTileSide = 16;                            // rows; and lanes of 32 bits in a row
constexpr int64_t kTileRowBytes = 64, kTileBytes = 16 * 64;  // of a tile
constexpr int64_t kTileDepth = 32;                           // bf16 values of a row: k of one dot

#ifdef QWICK_EMULATE

struct EmulatedTiles {
    bool configured;
    alignas(64) uint32_t rows[8][kTileSide][16];
};
thread_local EmulatedTiles emulated;

// A use that would end the process.
inline void require_configured() {
    if (!emulated.configured) __builtin_trap();
}

struct Tiles {
    Tiles() { __builtin_memset(&emulated, 0, sizeof emulated), emulated.configured = true; }
    ~Tiles() { emulated.configured = false; }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

template <int t>
inline void tile_zero() {
    require_configured();
    __builtin_memset(emulated.rows[t], 0, kTileBytes);
}

template <int t>
inline void tile_load(const void* from, int64_t stride) {
    require_configured();
    for (int64_t i = 0; i < kTileSide; ++i) {
        __builtin_memcpy(emulated.rows[t][i], static_cast<const uint8_t*>(from) + i * stride, kTileRowBytes);
    }
}

template <int t>
inline void tile_store(void* to, int64_t stride) {
    require_configured();
    for (int64_t i = 0; i < kTileSide; ++i) {
        __builtin_memcpy(static_cast<uint8_t*>(to) + i * stride, emulated.rows[t][i], kTileRowBytes);
    }
}

inline float value_of(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

[[gnu::noinline]] static void emulate_dot(uint32_t (*c)[16], const uint32_t (*a)[16], const uint32_t (*b)[16]) {
    for (int64_t m = 0; m < kTileSide; ++m) {
        float even[16] = {}, odd[16] = {};
        for (int64_t pair = 0; pair < 16; ++pair) {
            const float first = value_of(a[m][pair] << 16), second = value_of(a[m][pair] & 0xffff0000);
            for (int64_t n = 0; n < 16; ++n) {
                even[n] = __builtin_fmaf(first, value_of(b[pair][n] << 16), even[n]);
                odd[n] = __builtin_fmaf(second, value_of(b[pair][n] & 0xffff0000), odd[n]);
            }
        }
        for (int64_t n = 0; n < 16; ++n) {
            const float sum = value_of(c[m][n]) + (even[n] + odd[n]);
            __builtin_memcpy(&c[m][n], &sum, sizeof sum);
        }
    }
}

template <int c, int a, int b>
inline void tile_dot() {
    static_assert(c != a && c != b && a != b, "three tiles, or the instruction is invalid");
    require_configured();
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(0x9fc0);  // no exceptions, nearest even, denormals are zeros, results too
    emulate_dot(emulated.rows[c], emulated.rows[a], emulated.rows[b]);
    _mm_setcsr(mode);
}

#else

struct alignas(64) TileConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

constexpr TileConfig kTileConfig = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

struct Tiles {
    Tiles() { asm volatile("ldtilecfg %0" : : "m"(kTileConfig)); }
    ~Tiles() { asm volatile("tilerelease"); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// %c: the number alone, as part of the register's name.
template <int t>
inline void tile_zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(t));
}

template <int t>
inline void tile_load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(t), "r"(from), "r"(stride) : "memory");
}

template <int t>
inline void tile_store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(t), "r"(to), "r"(stride) : "memory");
}

template <int c, int a, int b>
inline void tile_dot() {
    static_assert(c != a && c != b && a != b, "three tiles, or the instruction is invalid");
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
}

#endif

}  // namespace
}  // namespace qwick::amx
