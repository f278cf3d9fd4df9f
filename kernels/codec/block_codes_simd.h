// Blocks in memory (blocks.h), kLanes rows at a time: codes and scales. Included after simd_<isa>.h.
#pragma once

#include "blocks.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int kTileParts = static_cast<int>(kTileRows / kLanes);  // vectors of rows in a tile
constexpr int64_t kPartBytes = kLanes * 4;                        // of a vector of 64 bytes

inline Ints splat_bytes(int byte) {
    return splat_ints(static_cast<int32_t>(static_cast<uint32_t>(byte) * 0x01010101u));
}

template <int n>
inline Ints shifted(Ints v) {  // left; right where negative
    if constexpr (n >= 0) return shift_left<n>(v);
    if constexpr (n < 0) return shift_right<-n>(v);
}

// Bits 4 and up of group g's codes.
template <int bits, int g>
inline Ints high_bits(const uint8_t* quants) {
    if constexpr (bits == 5) return both(shifted<4 - g>(load_ints(quants + 4 * kGroupBytes)), splat_bytes(0x10));
    const Ints two = load_ints(quants + (4 + g / 4) * kGroupBytes);
    return both(shifted<4 - g % 4 * 2>(two), splat_bytes(0x30));
}

// Group g of 32 columns: codes, or their entries of the table. `quants` is where the part's first vector begins.
template <Family family, int g>
inline Ints load_group(const uint8_t* quants) {
    constexpr BlockTraits traits = traits_of(family);
    if constexpr (traits.bits == 8) return load_ints(quants + g * kGroupBytes);
    const Ints two = load_ints(quants + g % 4 * kGroupBytes);
    const Ints low = both(shifted<g / 4 * -4>(two), splat_bytes(0x0f));
    if constexpr (traits.codes == Codes::iq4) return look_up(kIq4Table, low);
    if constexpr (traits.codes == Codes::fp4) return look_up(kFp4Table, low);
    if constexpr (traits.bits == 4) return low;
    return either(low, high_bits<traits.bits, g>(quants));
}

template <Family family>
inline void load_groups(const uint8_t* quants, Ints (&codes)[8]) {
    codes[0] = load_group<family, 0>(quants);
    codes[1] = load_group<family, 1>(quants);
    codes[2] = load_group<family, 2>(quants);
    codes[3] = load_group<family, 3>(quants);
    codes[4] = load_group<family, 4>(quants);
    codes[5] = load_group<family, 5>(quants);
    codes[6] = load_group<family, 6>(quants);
    codes[7] = load_group<family, 7>(quants);
}

template <Family family>
inline Vec load_scale(const void* halves) {
    if constexpr (traits_of(family).bf16_scale) return load_bf16(static_cast<const uint16_t*>(halves));
    return load_f16(static_cast<const uint16_t*>(halves));
}

// A block's sub-scales as signed bytes [sub-block][16]: in place, or unpacked from six bits. Nothing if it has none.
template <Family family>
struct SubScaleBytes {
    static constexpr BlockTraits kTraits = traits_of(family);

    explicit SubScaleBytes(const uint8_t* block) {
        if constexpr (kTraits.sub_scales == SubScales::bytes) {
            scales = reinterpret_cast<const int8_t*>(block + kTraits.scales_at());
            mins = reinterpret_cast<const int8_t*>(block + kTraits.sub_mins_at());
        }
        if constexpr (kTraits.sub_scales == SubScales::six_bits) {
            for (int part = 0; part < kTileParts; ++part) unpack(block + kTraits.scales_at(), part * kPartBytes);
            scales = unpacked[0];
            mins = unpacked[2];
        }
    }

    void unpack(const uint8_t* packed, int64_t at) {
        const Ints six = splat_bytes(0x3f), two = splat_bytes(3), four = splat_bytes(0x0c), top = splat_bytes(0x30);
        const Ints a = load_ints(packed + at), b = load_ints(packed + kGroupBytes + at),
                   c = load_ints(packed + 2 * kGroupBytes + at);
        store_ints(unpacked[0] + at, both(a, six));
        store_ints(unpacked[1] + at, both(b, six));
        store_ints(unpacked[2] + at, both(c, six));
        const Ints low = either(both(shift_right<6>(a), two), both(shift_right<4>(b), four));
        store_ints(unpacked[3] + at, either(low, both(shift_right<2>(c), top)));
    }

    const int8_t *scales = nullptr, *mins = nullptr;
    alignas(64) int8_t unpacked[kTraits.sub_scales == SubScales::six_bits ? 4 : 1][kGroupBytes];
};

// Every line of the block two blocks (of 32: eight) further on, spread over the work: the hardware loses the stream,
// because decoding fills the window in which a core looks ahead. See docs/LOG.md, "Decode at the true byte mix".
template <Family family>
inline void prefetch_block(const uint8_t* block, int64_t step) {
    constexpr BlockTraits traits = traits_of(family);
    constexpr int64_t lines = (traits.bytes() + 63) / 64, steps = traits.len / 32, each = (lines + steps - 1) / steps;
    const uint8_t* later = block + (traits.len == 32 ? 8 : 2) * traits.bytes();
#pragma GCC unroll 16
    for (int64_t i = 0; i < each; ++i) {
        _mm_prefetch(reinterpret_cast<const char*>(later) + (step * each + i) * 64, _MM_HINT_T0);
    }
}

// The minima of 32 columns, for their two sums of 16 activations.
template <Family family>
inline Ints min_pairs(const int8_t* mins, int part) {
    const Ints first = load_signed(mins + part * kLanes);
    if constexpr (traits_of(family).sub_len == 32) return pairs_of(first, first);
    return pairs_of(first, load_signed(mins + kTileRows + part * kLanes));
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
