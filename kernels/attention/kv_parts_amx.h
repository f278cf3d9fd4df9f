// Keys and values of each format as tiles of bf16 parts. Included by prompt_tiles_amx.h, which says why.
#pragma once

#include "attention/prefetch_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int64_t kBlockSteps = kBlockLen / kTileDepth;
constexpr int64_t kHalf = kTileDepth / 2;
constexpr int64_t kTilePair = 2 * kTileBytes;

struct Q8Groups;  // KeyGroup or ValueGroup

template <class Stored>
constexpr KvFormat kFormat = KvFormat::f16;
template <>
constexpr KvFormat kFormat<Bf16> = KvFormat::bf16;
template <>
constexpr KvFormat kFormat<Q8Groups> = KvFormat::q8_0;

template <class Stored>
constexpr int kParts = kFormat<Stored> == KvFormat::bf16 ? 1 : 2;

inline Vec upper_of(Vec v) {
    return floats_of(both(bits_of(v), splat_ints(static_cast<int32_t>(0xffff0000))));
}
inline Ints pairs_of_upper(Vec low, Vec high) {
    return _mm512_mask_mov_epi16(shift_right<16>(bits_of(low)), 0xaaaaaaaa, bits_of(high));
}

// Part p of `low` and `high` in pairs at out + p * to_next.
template <int parts>
inline void store_parts(Vec low, Vec high, char* out, int64_t to_next) {
    store_ints(out, pairs_of_upper(low, high));
    if constexpr (parts == 2) {
        store_ints(out + to_next, pairs_of_upper(sub(low, upper_of(low)), sub(high, upper_of(high))));
    }
}

// --- keys and values of each format as floats

template <class Stored>
struct Keys {
    const Stored* data;
    int64_t head_dim;

    const Stored* tile(int64_t t) const { return data + t * head_dim * kTileKeys; }
    Vec load_dim(int64_t t, int64_t d) const { return load_stored(tile(t) + d * kTileKeys); }
};

inline Vec signed_half(Ints pairs, bool upper) {
    return to_floats(shift_right_signed<16>(upper ? pairs : shift_left<16>(pairs)));
}

template <>
struct Keys<Q8Groups> {
    const KeyGroup* data;
    int64_t head_dim;

    const KeyGroup* tile(int64_t t) const { return data + t * (head_dim / kKvGroup); }
    Vec load_dim(int64_t t, int64_t d) const {
        const KeyGroup& group = tile(t)[d / kKvGroup];
        const Ints pairs = load_signed_pairs(group.codes[d % kKvGroup / 2][0]);
        return mul(signed_half(pairs, d % 2 != 0), load_f16(group.scales));
    }
};

// Of 32 dimensions.
template <class Stored>
struct Values {
    const Stored* data;

    Values(const void* values, int64_t d) : data(static_cast<const Stored*>(values) + d * kBlockLen) {}
    Vec load_key(int64_t half, int64_t j) const { return load_stored(data + (half * kBlockLen + j) * kTileDims); }
};

template <>
struct Values<Q8Groups> {
    const ValueGroup* data;
    alignas(64) float scales[kBlockLen];

    Values(const void* values, int64_t d) : data(static_cast<const ValueGroup*>(values) + d / kKvGroup) {
        for (int64_t j = 0; j < kBlockLen; j += kLanes) store(scales + j, load_f16(data->scales + j));
    }
    Vec load_key(int64_t half, int64_t j) const {
        return mul(signed_half(load_signed_pairs(data->codes[half][j / 2][0]), j % 2 != 0), splat(scales[j]));
    }
};

// --- tiles, [step][part][2] of them

// Keys of tiles t and t + 1.
template <class Stored>
void make_key_tiles(const Keys<Stored>& keys, int64_t t, const ReadAhead& read_ahead, char* out) {
    for (int64_t n = 0; n < 2; ++n) {
        const char* ahead = read_ahead.address_after(keys.tile(t + n));
        const int64_t step_bytes = static_cast<const char*>(static_cast<const void*>(keys.tile(1))) -
                                   static_cast<const char*>(static_cast<const void*>(keys.tile(0)));
        for (int64_t at = 0; at < step_bytes; at += kLine) __builtin_prefetch(ahead + at, 0, 2);
        for (int64_t d = 0; d < keys.head_dim; d += kTileDepth) {
            char* tiles = out + d / kTileDepth * kParts<Stored> * kTilePair + n * kTileBytes;
            for (int64_t i = 0; i < kHalf; ++i) {
                const Vec low = keys.load_dim(t + n, d + i), high = keys.load_dim(t + n, d + kHalf + i);
                store_parts<kParts<Stored>>(low, high, tiles + i * kTileRowBytes, kTilePair);
            }
        }
    }
}

// 32 dimensions; keys out of everyone's sight are zeros.
template <class Stored>
void make_value_tiles(const Values<Stored>& values, int64_t most, char* out) {
    const auto load_visible = [&](int64_t half, int64_t j) { return j < most ? values.load_key(half, j) : zero(); };
    for (int64_t step = 0; step < kBlockSteps; ++step) {
        for (int64_t n = 0; n < 2; ++n) {
            char* tiles = out + step * kParts<Stored> * kTilePair + n * kTileBytes;
            for (int64_t i = 0; i < kHalf; ++i) {
                const int64_t j = step * kTileDepth + i;
                store_parts<kParts<Stored>>(load_visible(n, j), load_visible(n, j + kHalf), tiles + i * kTileRowBytes,
                                            kTilePair);
            }
        }
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
