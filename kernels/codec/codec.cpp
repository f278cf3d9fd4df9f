#include "codec/codec.h"

#include <cmath>
#include <cstring>

#include "codec/half.h"
#include "codec/row_block.h"

namespace qwick {
namespace {

void encode_block(const float* x, int8_t* quants, uint16_t* scale) {
    float amax = 0, all = 0;
    for (int64_t i = 0; i < kQuantBlock; ++i) {
        amax = std::fmax(amax, std::fabs(x[i]));  // fmax drops NaN, the sum below keeps it
        all += x[i];
    }
    const bool finite = std::isfinite(amax) && !std::isnan(all);
    const float d = amax / 127.0f;
    const float inverse = d != 0 && finite ? 1.0f / d : 0.0f;
    for (int64_t i = 0; i < kQuantBlock; ++i) {
        const float scaled = finite ? std::round(x[i] * inverse) : 0.0f;
        quants[i] =
            static_cast<int8_t>(std::fmin(std::fmax(scaled, -128.0f), 127.0f));  // 1 / d overflows for denormal d
    }
    *scale = finite ? f32_to_f16(d) : uint16_t{0x7e00};
}

}  // namespace

void encode_q8_0(const float* x, int64_t k, int8_t* quants, uint16_t* scales) {
    for (int64_t block = 0; block < k / kQuantBlock; ++block) {
        encode_block(x + block * kQuantBlock, quants + block * kQuantBlock, scales + block);
    }
}

Family family_of(BlockType type) {
    switch (type) {
        case BlockType::f32:
            return Family::f32;
        case BlockType::f16:
            return Family::f16;
        case BlockType::bf16:
            return Family::bf16;
        case BlockType::q4_0:
            return Family::u4;
        case BlockType::q4_1:
            return Family::u4m;
        case BlockType::q5_0:
            return Family::u5;
        case BlockType::q5_1:
            return Family::u5m;
        case BlockType::q8_0:
            return Family::i8;
        case BlockType::q2_k:
        case BlockType::q3_k:
            return Family::u4s;
        case BlockType::q4_k:
            return Family::u4k;
        case BlockType::q5_k:
            return Family::u5k;
        case BlockType::q6_k:
            return Family::u6k;
        case BlockType::iq4_nl:
            return Family::t4;
        case BlockType::iq4_xs:
            return Family::t4k;
        case BlockType::mxfp4:
            return Family::t4e;
    }
    return Family::f32;
}

BlockType block_type_of(Family family) {
    for (const BlockType type : kBlockTypes) {
        if (family_of(type) == family) return type;
    }
    return BlockType::f32;
}

int64_t file_row_bytes(BlockType type, int64_t k) {
    return k / block_shape(type).len * block_shape(type).bytes;
}

int64_t memory_bytes(Family family, int64_t rows, int64_t cols) {
    if (!is_blocks(family)) return rows * cols * (family == Family::f32 ? 4 : 2);
    const BlockTraits traits = traits_of(family);
    return (rows + kTileRows - 1) / kTileRows * (cols / traits.len) * traits.bytes();
}

const uint8_t* tile_of(const Weight& w, int64_t row) {
    return static_cast<const uint8_t*>(w.data) + row / kTileRows * memory_bytes(w.family, kTileRows, w.cols);
}

void decode_file_row(BlockType type, const uint8_t* row, int64_t k, float* out) {
    if (type == BlockType::f32) {
        std::memcpy(out, row, k * sizeof(float));
    } else if (const Unpack unpack = unpack_of(type)) {
        const BlockTraits traits = traits_of(family_of(type));
        RowBlock block{};
        for (int64_t i = 0; i < k / traits.len; ++i) {
            unpack(row + i * block_shape(type).bytes, block);
            values_of(traits, block, out + i * traits.len);
        }
    } else {
        for (int64_t i = 0; i < k; ++i) {
            uint16_t bits;
            std::memcpy(&bits, row + 2 * i, sizeof bits);
            out[i] = type == BlockType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
        }
    }
}

void regroup(BlockType type, const uint8_t* rows, const Weight& w, int64_t first, int64_t count, uint8_t* tile) {
    const BlockTraits traits = traits_of(w.family);
    const Unpack unpack = unpack_of(type);
    const int64_t row_bytes = file_row_bytes(type, w.cols), block_bytes = block_shape(type).bytes;
    RowBlock staged[kTileRows]{};
    for (int64_t block = 0; block < w.cols / traits.len; ++block, tile += traits.bytes()) {
        for (int64_t i = 0; i < count; ++i) unpack(rows + i * row_bytes + block * block_bytes, staged[i]);
        store_rows(traits, staged, first, count, tile);
    }
}

void decode_memory_row(const Weight& w, int64_t row, float* out) {
    if (!is_blocks(w.family)) {
        const int64_t bytes = memory_bytes(w.family, 1, w.cols);
        return decode_file_row(block_type_of(w.family), static_cast<const uint8_t*>(w.data) + row * bytes, w.cols, out);
    }
    const BlockTraits traits = traits_of(w.family);
    const uint8_t* block = tile_of(w, row);
    RowBlock staged{};
    for (int64_t k = 0; k < w.cols; k += traits.len, block += traits.bytes()) {
        load_row(traits, block, row % kTileRows, staged);
        values_of(traits, staged, out + k);
    }
}

}  // namespace qwick
