// What a block's reader fetches ahead of itself. Included after simd_<isa>.h.
#pragma once

#include "attention/kv_block.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int64_t kLine = 64;
constexpr int kTileVecs = kTileKeys / kLanes;  // vectors of a tile's 16 keys, or of its 16 dimensions

// The bytes of a block, and the block to be read next.
struct ReadAhead {
    const char* begin;
    int64_t bytes;
    const char* next;
    int64_t distance;

    // What to fetch while the piece at p is worked on.
    const char* address_after(const void* p) const {
        const int64_t at = static_cast<const char*>(p) - begin + distance;
        return at < bytes ? begin + at : next + (at - bytes);
    }
};

// Pieces of values are as long as `distance`, 2 KiB with four rows of f16 on AVX2, so that the last one fetches how the
// next block begins. Where head_dim / 16 is no multiple of a piece's tiles, the last whole piece runs over the end:
// some lines behind the block are fetched in vain, and as many of the next one are not. Rows that take their turn on
// the same block begin it again.
inline ReadAhead read_ahead_of(const KvBlock& block, int64_t block_bytes, int64_t distance, bool same_block_again) {
    const void* next = same_block_again || block.next == nullptr ? block.data : block.next;
    return {static_cast<const char*>(block.data), 2 * block_bytes, static_cast<const char*>(next), distance};
}

template <int64_t bytes>
inline void prefetch(const char* p) {
#pragma GCC unroll 8
    for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(p + at);
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
