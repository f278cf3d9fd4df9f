// How matrices of the block families lie in memory: one layout for every instruction set.
//
// 16 rows make a tile (the last one filled up with zeros); a tile is the sequence of its blocks over k, and a block
// holds, for its 32 or 256 columns, one part after another:
//
//   d [16]                  f16 scales of the 16 rows (t4e: bf16); then m [16], f16, if the family has minima
//   sub-scales              per sub-block of 16 or 32 columns: see SubScales
//   quants, per 32 columns  `bits` vectors of 64 bytes. A vector has 4 columns of each row: byte 4 r + i is row r,
//                           column 4 g + i of group g < 8. Codes of 4 bits: vector j holds group j in its low nibbles,
//                           group j + 4 in the high ones. A fifth bit: bit g of one more vector. Bits 4 and 5: bits
//                           2 (g % 4) and above of vector g / 4 of two more. Codes of 8 bits: vector g.
//
// A row is one 32-bit lane of such a vector: sums over k need no step across lanes, activations are broadcast four
// bytes at a time, one 512-bit vector or two of 256 bits take all 16 rows, and it is what AMX wants of its B tiles.
//
//   value = (d * s) * (code - zero) - (m * t)
//
// s, t: the sub-block's scale and minimum, 1 where there are none. Both products are exact in f32, so a value has one
// rounding. What files hold is regrouped into this without loss (codec/unpack.cpp).
#pragma once

#include "kernels.h"

namespace qwick {

// Of all that is said here: files of the pack cache hold weights as memory does. Raise it when anything changes.
constexpr int kLayoutVersion = 1;

constexpr int64_t kTileRows = 16;
constexpr int64_t kGroupBytes = 4 * kTileRows;  // 4 columns of a tile
constexpr int64_t kMaxBlock = 256;

enum class Codes : uint8_t { number, iq4, fp4 };  // number: the code itself; iq4, fp4: its entry of a table

enum class SubScales : uint8_t {
    none,
    six_bits,  // 8 scales and 8 minima of 0 .. 63 for each row, in 3 vectors of 64 bytes: byte 16 j + r of vector 0 is
               // scale j, of vector 1 scale 4 + j, of vector 2 minimum j in the low 6 bits; the top 2 bits of the three
               // are bits 0-1, 2-3 and 4-5 of minimum 4 + j
    bytes,     // signed: [sub-block][16] scales, then as many minima if the family has them
};

struct BlockTraits {
    int bits = 0;  // of a code; 8: signed
    int zero = 0;  // code that stands for 0
    Codes codes = Codes::number;
    int64_t len = 0, sub_len = 0;
    SubScales sub_scales = SubScales::none;
    bool has_min = false;
    bool bf16_scale = false;

    QWICK_INLINE bool is_signed() const { return bits == 8 || codes != Codes::number; }
    QWICK_INLINE int64_t num_subs() const { return len / sub_len; }
    // Offsets in a block, and its size, in bytes.
    QWICK_INLINE int64_t min_at() const { return 2 * kTileRows; }
    QWICK_INLINE int64_t scales_at() const { return (has_min ? 4 : 2) * kTileRows; }
    QWICK_INLINE int64_t sub_mins_at() const { return scales_at() + num_subs() * kTileRows; }  // SubScales::bytes
    QWICK_INLINE int64_t quants_at() const {
        const int64_t six_bits = 3 * kGroupBytes, bytes = (has_min ? 2 : 1) * num_subs() * kTileRows;
        return scales_at() + (sub_scales == SubScales::none ? 0 : sub_scales == SubScales::six_bits ? six_bits : bytes);
    }
    QWICK_INLINE int64_t group_bytes() const { return bits * kGroupBytes; }  // of 32 columns
    QWICK_INLINE int64_t bytes() const { return quants_at() + len / 32 * group_bytes(); }
};

QWICK_INLINE BlockTraits traits_of(Family family) {
    constexpr SubScales none = SubScales::none, six_bits = SubScales::six_bits, bytes = SubScales::bytes;
    switch (family) {
        case Family::i8:
            return {8, 0, Codes::number, 32, 32, none, false, false};
        case Family::u4:
            return {4, 8, Codes::number, 32, 32, none, false, false};
        case Family::u4m:
            return {4, 0, Codes::number, 32, 32, none, true, false};
        case Family::u5:
            return {5, 16, Codes::number, 32, 32, none, false, false};
        case Family::u5m:
            return {5, 0, Codes::number, 32, 32, none, true, false};
        case Family::t4:
            return {4, 0, Codes::iq4, 32, 32, none, false, false};
        case Family::t4e:
            return {4, 0, Codes::fp4, 32, 32, none, false, true};
        case Family::u4k:
            return {4, 0, Codes::number, 256, 32, six_bits, true, false};
        case Family::u5k:
            return {5, 0, Codes::number, 256, 32, six_bits, true, false};
        case Family::u6k:
            return {6, 32, Codes::number, 256, 16, bytes, false, false};
        case Family::u4s:
            return {4, 4, Codes::number, 256, 16, bytes, true, false};
        case Family::t4k:
            return {4, 0, Codes::iq4, 256, 32, bytes, false, false};
        default:
            return {};
    }
}

constexpr int8_t kIq4Table[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr int8_t kFp4Table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};  // e2m1, doubled

static_assert(traits_of(Family::u4k).bytes() == 16 * 144 && traits_of(Family::u6k).bytes() == 16 * 210 &&
                  traits_of(Family::u4s).bytes() == 16 * 164 && traits_of(Family::i8).bytes() == 16 * 34,
              "sizes are those of formats.py");

}  // namespace qwick
