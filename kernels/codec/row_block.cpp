#include "codec/row_block.h"

#include <cstring>

#include "codec/half.h"

namespace qwick {
namespace {

template <class T>
T* at(uint8_t* block, int64_t offset) {
    return reinterpret_cast<T*>(block + offset);
}
template <class T>
const T* at(const uint8_t* block, int64_t offset) {
    return reinterpret_cast<const T*>(block + offset);
}

// SubScales::six_bits.
void store_six_bits(const RowBlock& row, uint8_t* packed) {
    for (int j = 0; j < 4; ++j, packed += kTileRows) {
        const int last = row.mins[4 + j];
        packed[0] = static_cast<uint8_t>(row.scales[j] | (last & 3) << 6);
        packed[kGroupBytes] = static_cast<uint8_t>(row.scales[4 + j] | (last >> 2 & 3) << 6);
        packed[2 * kGroupBytes] = static_cast<uint8_t>(row.mins[j] | (last >> 4) << 6);
    }
}

void load_six_bits(const uint8_t* packed, RowBlock& row) {
    for (int j = 0; j < 4; ++j, packed += kTileRows) {
        const int a = packed[0], b = packed[kGroupBytes], c = packed[2 * kGroupBytes];
        row.scales[j] = static_cast<int8_t>(a & 63);
        row.scales[4 + j] = static_cast<int8_t>(b & 63);
        row.mins[j] = static_cast<int8_t>(c & 63);
        row.mins[4 + j] = static_cast<int8_t>(a >> 6 | b >> 6 << 2 | c >> 6 << 4);
    }
}

// The 4 codes of group g < 8, from a row's lanes.
template <int bits>
uint32_t group(const uint32_t* words, int g) {
    if (bits == 8) return words[g];
    const uint32_t low = words[g % 4] >> g / 4 * 4 & 0x0f0f0f0f;
    if (bits == 4) return low;
    if (bits == 5) return low | (words[4] >> g & 0x01010101) << 4;
    return low | (words[4 + g / 4] >> g % 4 * 2 & 0x03030303) << 4;
}

template <int bits>
void read_codes(const BlockTraits& traits, const uint32_t* words, int8_t* out) {
    for (int64_t begin = 0; begin < traits.len; begin += 32, words += bits) {
        for (int g = 0; g < 8; ++g) {
            const uint32_t four = group<bits>(words, g);
            std::memcpy(out + begin + 4 * g, &four, sizeof four);
        }
    }
    if (traits.codes != Codes::number) {
        const int8_t* table = traits.codes == Codes::iq4 ? kIq4Table : kFp4Table;
        for (int64_t i = 0; i < traits.len; ++i) out[i] = table[out[i]];
    } else {
        for (int64_t i = 0; i < traits.len; ++i) out[i] = static_cast<int8_t>(out[i] - traits.zero);
    }
}

}  // namespace

void store_rows(const BlockTraits& traits, const RowBlock* rows, int64_t first, int64_t count, uint8_t* block) {
    const int64_t subs = traits.num_subs(), words = traits.len / 32 * traits.bits;
    for (int64_t i = 0; i < count; ++i) {
        const RowBlock& row = rows[i];
        at<uint16_t>(block, 0)[first + i] = row.d;
        if (traits.has_min) at<uint16_t>(block, traits.min_at())[first + i] = row.m;
        if (traits.sub_scales == SubScales::six_bits) store_six_bits(row, block + traits.scales_at() + first + i);
        if (traits.sub_scales != SubScales::bytes) continue;
        for (int64_t s = 0; s < subs; ++s) {
            at<int8_t>(block, traits.scales_at())[s * kTileRows + first + i] = row.scales[s];
            if (traits.has_min) at<int8_t>(block, traits.sub_mins_at())[s * kTileRows + first + i] = row.mins[s];
        }
    }
    auto* out = at<uint32_t>(block, traits.quants_at()) + first;
    if (count == kTileRows) {  // the usual case, for the compiler to unroll
        for (int64_t w = 0; w < words; ++w, out += kTileRows) {
            for (int64_t i = 0; i < kTileRows; ++i) out[i] = rows[i].words[w];
        }
        return;
    }
    for (int64_t w = 0; w < words; ++w, out += kTileRows) {
        for (int64_t i = 0; i < count; ++i) out[i] = rows[i].words[w];
    }
}

void load_row(const BlockTraits& traits, const uint8_t* block, int64_t row, RowBlock& out) {
    const int64_t words = traits.len / 32 * traits.bits;
    out.d = at<uint16_t>(block, 0)[row];
    out.m = traits.has_min ? at<uint16_t>(block, traits.min_at())[row] : uint16_t{0};
    if (traits.sub_scales == SubScales::six_bits) load_six_bits(block + traits.scales_at() + row, out);
    const int64_t subs = traits.sub_scales == SubScales::bytes ? traits.num_subs() : 0;
    for (int64_t s = 0; s < subs && s < 16; ++s) {
        out.scales[s] = at<int8_t>(block, traits.scales_at())[s * kTileRows + row];
        out.mins[s] = traits.has_min ? at<int8_t>(block, traits.sub_mins_at())[s * kTileRows + row] : int8_t{0};
    }
    const auto* in = at<uint32_t>(block, traits.quants_at()) + row;
    for (int64_t w = 0; w < words; ++w) out.words[w] = in[w * kTileRows];
}

void codes_of(const BlockTraits& traits, const RowBlock& block, int8_t* codes) {
    switch (traits.bits) {
        case 4:
            return read_codes<4>(traits, block.words, codes);
        case 5:
            return read_codes<5>(traits, block.words, codes);
        case 6:
            return read_codes<6>(traits, block.words, codes);
        default:
            return read_codes<8>(traits, block.words, codes);
    }
}

float scale_of(const BlockTraits& traits, const RowBlock& block) {
    return traits.bf16_scale ? bf16_to_f32(block.d) : f16_to_f32(block.d);
}

void values_of(const BlockTraits& traits, const RowBlock& block, float* values) {
    int8_t codes[kMaxBlock];
    codes_of(traits, block, codes);
    const bool subs = traits.sub_scales != SubScales::none;
    const float d = scale_of(traits, block), m = traits.has_min ? f16_to_f32(block.m) : 0;
    for (int64_t s = 0; s < traits.num_subs(); ++s) {
        const float scale = subs ? d * static_cast<float>(block.scales[s]) : d;
        const float min = subs ? m * static_cast<float>(block.mins[s]) : m;
        for (int64_t i = s * traits.sub_len; i < (s + 1) * traits.sub_len; ++i) {
            const float product = scale * static_cast<float>(codes[i]);
            values[i] = traits.has_min ? product - min : product;
        }
    }
}

}  // namespace qwick
