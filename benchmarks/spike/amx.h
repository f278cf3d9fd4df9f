// AMX bf16 tiles of 16 rows x 64 bytes: c[16][16] f32 += a[16][32] bf16 * b[16 pairs][16 columns][2] bf16.
// With -DSPIKE_SIMDE the tiles are emulated, to check the code around them on any machine.
#pragma once
#include <cstdint>

#ifdef SPIKE_SIMDE
static thread_local uint32_t tile_memory[8][16][16];
static inline float low_half(uint32_t pair) {
    return __builtin_bit_cast(float, pair << 16);
}
static inline float high_half(uint32_t pair) {
    return __builtin_bit_cast(float, pair & 0xffff0000u);
}
static void tile_zero(int t) {
    __builtin_memset(tile_memory[t], 0, 1024);
}
static void tile_load(int t, const void* from, int stride) {
    for (int r = 0; r < 16; ++r) __builtin_memcpy(tile_memory[t][r], (const char*)from + r * stride, 64);
}
static void tile_store(int t, void* to, int stride) {
    for (int r = 0; r < 16; ++r) __builtin_memcpy((char*)to + r * stride, tile_memory[t][r], 64);
}
static void tile_dot(int c, int a, int b) {
    for (int m = 0; m < 16; ++m)
        for (int n = 0; n < 16; ++n) {
            float sum = __builtin_bit_cast(float, tile_memory[c][m][n]);
            for (int p = 0; p < 16; ++p) {
                uint32_t x = tile_memory[a][m][p], w = tile_memory[b][p][n];
                sum += low_half(x) * low_half(w) + high_half(x) * high_half(w);
            }
            tile_memory[c][m][n] = __builtin_bit_cast(uint32_t, sum);
        }
}
static bool amx_allowed() {
    return true;
}
static void amx_start() {}
static void amx_stop() {}
#else
#include <sys/syscall.h>
#include <unistd.h>

// Macros, because GCC 12 pastes the tile's number into the instruction text.
#define tile_zero(t) _tile_zero(t)
#define tile_load(t, from, stride) _tile_loadd(t, from, stride)
#define tile_store(t, to, stride) _tile_stored(t, to, stride)
#define tile_dot(c, a, b) _tile_dpbf16ps(c, a, b)

// The OS grants tile data per process: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
static bool amx_allowed() {
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

// Every thread loads its own configuration. Static and const, because GCC 12 believes that only 8 bytes are read.
static void amx_start() {
    struct Config {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    };
    alignas(64) static const Config config = {
        1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&config);
}
static void amx_stop() {
    _tile_release();
}
#endif
