// One row's block by itself, between the two orders: a file's (unpack.cpp) and memory's (blocks.h).
#pragma once

#include <cstdint>

#include "blocks.h"
#include "codec/block_type.h"

namespace qwick {

// The parts that a family does not have are not read.
struct RowBlock {
    uint16_t d, m;
    int8_t scales[16], mins[16];
    uint32_t words[64];  // the row's lanes: `bits` of them per 32 columns
};

// A block as a file holds it, taken apart. Null for formats without blocks.
using Unpack = void (*)(const uint8_t* block, RowBlock& out);
Unpack unpack_of(BlockType type);

// Rows [first, first + count) of a tile's block; the bytes of other rows are left alone.
void store_rows(const BlockTraits& traits, const RowBlock* rows, int64_t first, int64_t count, uint8_t* block);
void load_row(const BlockTraits& traits, const uint8_t* block, int64_t row, RowBlock& out);

// `len` codes less their zero point, or their table's entries.
void codes_of(const BlockTraits& traits, const RowBlock& block, int8_t* codes);
float scale_of(const BlockTraits& traits, const RowBlock& block);  // d as f32
void values_of(const BlockTraits& traits, const RowBlock& block, float* values);

}  // namespace qwick
