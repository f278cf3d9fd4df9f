// Blocks as files hold them (ggml-common.h: block_q4_0, ...), taken apart into a row's lanes by operations on 4 bytes
// at a time. Nothing is lost: every value of memory equals the file's to the bit.
#include <cstring>

#include "codec/row_block.h"

namespace qwick {
namespace {

constexpr uint32_t kLow4 = 0x0f0f0f0f, kLow2 = 0x03030303, kLow1 = 0x01010101;

uint16_t half_at(const uint8_t* p) {
    uint16_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}
uint32_t word_at(const uint8_t* p) {
    uint32_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

// Files add a minimum, memory subtracts it.
uint16_t negated(uint16_t half) {
    return half ^ 0x8000;
}

// 32 bits, column i's at position i, into bit i / 4 of byte i % 4.
uint32_t spread_bits(uint32_t bits) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
        uint32_t x = bits >> i & 0x11111111;  // groups' bits at 4 g: move them together
        x = (x | x >> 3) & 0x03030303;
        x = (x | x >> 6) & 0x000f000f;
        word |= ((x | x >> 12) & 0xff) << 8 * i;
    }
    return word;
}

// 16 bytes of nibbles, columns 0 .. 15 in the low ones: memory's order already.
void copy_nibbles(const uint8_t* quants, uint32_t* words) {
    std::memcpy(words, quants, 16);
}

void unpack_q4_0(const uint8_t* block, RowBlock& out) {  // also IQ4_NL
    out.d = half_at(block);
    copy_nibbles(block + 2, out.words);
}

void unpack_q4_1(const uint8_t* block, RowBlock& out) {
    out.d = half_at(block);
    out.m = negated(half_at(block + 2));
    copy_nibbles(block + 4, out.words);
}

void unpack_q5_0(const uint8_t* block, RowBlock& out) {
    out.d = half_at(block);
    out.words[4] = spread_bits(word_at(block + 2));
    copy_nibbles(block + 6, out.words);
}

void unpack_q5_1(const uint8_t* block, RowBlock& out) {
    out.d = half_at(block);
    out.m = negated(half_at(block + 2));
    out.words[4] = spread_bits(word_at(block + 4));
    copy_nibbles(block + 8, out.words);
}

void unpack_q8_0(const uint8_t* block, RowBlock& out) {
    out.d = half_at(block);
    std::memcpy(out.words, block + 2, 32);
}

// The scale is 2^(e - 128), which bf16 holds (e < 2: as a subnormal, which worker threads read as zero).
void unpack_mxfp4(const uint8_t* block, RowBlock& out) {
    const unsigned e = block[0];
    out.d = static_cast<uint16_t>(e < 2 ? 0x20u << e : (e - 1) << 7);
    copy_nibbles(block + 1, out.words);
}

// 12 bytes: scales 0-3 and minima 0-3 in 6 bits each, then nibbles of the others, whose top bits are in the first 8.
void unpack_six_bits(const uint8_t* packed, RowBlock& out) {
    for (int j = 0; j < 4; ++j) {
        const int a = packed[j], b = packed[4 + j], c = packed[8 + j];
        out.scales[j] = static_cast<int8_t>(a & 63);
        out.mins[j] = static_cast<int8_t>(b & 63);
        out.scales[4 + j] = static_cast<int8_t>((c & 15) | (a >> 2 & 48));
        out.mins[4 + j] = static_cast<int8_t>(c >> 4 | (b >> 2 & 48));
    }
}

// Sub-blocks 2 c and 2 c + 1 are the low and the high nibbles of one stretch of 32 bytes. bits: words per sub-block.
void unpack_nibble_pairs(const uint8_t* quants, int bits, uint32_t* words) {
    for (int c = 0; c < 4; ++c, quants += 32, words += 2 * bits) {
        for (int j = 0; j < 4; ++j) {
            const uint32_t a = word_at(quants + 4 * j), b = word_at(quants + 16 + 4 * j);
            words[j] = (a & kLow4) | (b & kLow4) << 4;
            words[bits + j] = (a >> 4 & kLow4) | (b & ~kLow4);
        }
    }
}

void unpack_q4_k(const uint8_t* block, RowBlock& out) {
    out.d = half_at(block);
    out.m = half_at(block + 2);
    unpack_six_bits(block + 4, out);
    unpack_nibble_pairs(block + 16, 4, out.words);
}

void unpack_q5_k(const uint8_t* block, RowBlock& out) {
    out.d = half_at(block);
    out.m = half_at(block + 2);
    unpack_six_bits(block + 4, out);
    unpack_nibble_pairs(block + 48, 5, out.words);
    uint32_t high[8];  // bit s of byte i: column i of sub-block s
    std::memcpy(high, block + 16, sizeof high);
    for (int s = 0; s < 8; ++s) {
        uint32_t word = 0;
        for (int g = 0; g < 8; ++g) word |= (high[g] >> s & kLow1) << g;
        out.words[5 * s + 4] = word;
    }
}

void unpack_q6_k(const uint8_t* block, RowBlock& out) {
    uint32_t low[32], high[16];
    std::memcpy(low, block, sizeof low);
    std::memcpy(high, block + 128, sizeof high);
    std::memcpy(out.scales, block + 192, 16);
    out.d = half_at(block + 208);
    uint32_t* words = out.words;
    for (int s = 0; s < 8; ++s, words += 6) {  // half s / 4 of the block, its quarter s % 4
        const int shift = s % 4 / 2 * 4, top = s % 4 * 2;
        const uint32_t *nibbles = low + s / 4 * 16 + s % 2 * 8, *bits = high + s / 4 * 8;
        for (int j = 0; j < 4; ++j) {
            words[j] = (nibbles[j] >> shift & kLow4) | (nibbles[j + 4] >> shift & kLow4) << 4;
        }
        for (int v = 0; v < 2; ++v) {
            uint32_t word = 0;
            for (int j = 0; j < 4; ++j) word |= (bits[4 * v + j] >> top & kLow2) << 2 * j;
            words[4 + v] = word;
        }
    }
}

// Codes carry 4 more than the file's, the family's zero point, so that Q3_K's -4 .. 3 fit the same family.
void unpack_q2_k(const uint8_t* block, RowBlock& out) {
    for (int s = 0; s < 16; ++s) {
        out.scales[s] = static_cast<int8_t>(block[s] & 15);
        out.mins[s] = static_cast<int8_t>(block[s] >> 4);
    }
    uint32_t low[16];
    std::memcpy(low, block + 16, sizeof low);
    for (int s = 0; s < 8; ++s) {
        const uint32_t* quants = low + s / 4 * 8;
        const int shift = s % 4 * 2;
        for (int j = 0; j < 4; ++j) {
            const uint32_t a = quants[j] >> shift & kLow2, b = quants[j + 4] >> shift & kLow2;
            out.words[4 * s + j] = (a | 0x04040404) | (b | 0x04040404) << 4;
        }
    }
    out.d = half_at(block + 80);
    out.m = half_at(block + 82);
}

// 2 bits here, the third in a mask of its own; scales of 6 bits: 16 nibbles, then the top bits.
void unpack_q3_k(const uint8_t* block, RowBlock& out) {
    const uint8_t* packed = block + 96;
    for (int s = 0; s < 16; ++s) {
        const int low = packed[s % 8] >> s / 8 * 4 & 15, top = packed[8 + s % 4] >> s / 4 * 2 & 3;
        out.scales[s] = static_cast<int8_t>((low | top << 4) - 32);
        out.mins[s] = 0;
    }
    uint32_t mask[8], low[16];
    std::memcpy(mask, block, sizeof mask);
    std::memcpy(low, block + 32, sizeof low);
    const auto three_bits = [&](int s, int g) {
        return (low[s / 4 * 8 + g] >> s % 4 * 2 & kLow2) | (mask[g] >> s & kLow1) << 2;
    };
    for (int s = 0; s < 8; ++s) {
        for (int j = 0; j < 4; ++j) out.words[4 * s + j] = three_bits(s, j) | three_bits(s, j + 4) << 4;
    }
    out.d = half_at(block + 108);
    out.m = 0;
}

void unpack_iq4_xs(const uint8_t* block, RowBlock& out) {
    out.d = half_at(block);
    const unsigned top = half_at(block + 2);
    for (int s = 0; s < 8; ++s) {
        const unsigned low = block[4 + s / 2] >> s % 2 * 4 & 15;
        out.scales[s] = static_cast<int8_t>(static_cast<int>(low | (top >> 2 * s & 3) << 4) - 32);
    }
    std::memcpy(out.words, block + 8, 128);
}

}  // namespace

Unpack unpack_of(BlockType type) {
    switch (type) {
        case BlockType::q4_0:
        case BlockType::iq4_nl:
            return unpack_q4_0;
        case BlockType::q4_1:
            return unpack_q4_1;
        case BlockType::q5_0:
            return unpack_q5_0;
        case BlockType::q5_1:
            return unpack_q5_1;
        case BlockType::q8_0:
            return unpack_q8_0;
        case BlockType::q2_k:
            return unpack_q2_k;
        case BlockType::q3_k:
            return unpack_q3_k;
        case BlockType::q4_k:
            return unpack_q4_k;
        case BlockType::q5_k:
            return unpack_q5_k;
        case BlockType::q6_k:
            return unpack_q6_k;
        case BlockType::iq4_xs:
            return unpack_iq4_xs;
        case BlockType::mxfp4:
            return unpack_mxfp4;
        default:
            return nullptr;
    }
}

}  // namespace qwick
