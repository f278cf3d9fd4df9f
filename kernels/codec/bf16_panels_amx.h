// Panels of prompt rows in bf16, for tiles of AMX (see PromptForm): values as decode_row gives them, rounded once. A
// pair of columns of 16 weight rows is a row of a tile; 32 columns are a tile. Included after simd_amx.h.
#pragma once

#include "codec/block_codes_simd.h"
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// Codes of at most 5 bits become floats by a look-up that ignores the bits above: no mask, no conversion.
QWICK_INLINE bool is_looked_up(const BlockTraits& traits) {
    return traits.bits <= 5;
}

// Values of codes: less the zero point, or entries of a table.
template <Family family>
struct alignas(64) CodeValues {
    float values[32] = {};

    constexpr CodeValues() {
        constexpr BlockTraits traits = traits_of(family);
        for (int code = 0; code < 32; ++code) {
            const int entry = traits.codes == Codes::iq4 ? kIq4Table[code % 16] : kFp4Table[code % 16];
            values[code] = static_cast<float>(traits.codes == Codes::number ? code - traits.zero : entry);
        }
    }
};
template <Family family>
constexpr CodeValues<family> kCodeValues;

// Byte i of each lane as its highest: the integer is 2^24 times the signed byte.
constexpr int8_t kTopByte[4][16] = {{-1, -1, -1, 0, -1, -1, -1, 4, -1, -1, -1, 8, -1, -1, -1, 12},
                                    {-1, -1, -1, 1, -1, -1, -1, 5, -1, -1, -1, 9, -1, -1, -1, 13},
                                    {-1, -1, -1, 2, -1, -1, -1, 6, -1, -1, -1, 10, -1, -1, -1, 14},
                                    {-1, -1, -1, 3, -1, -1, -1, 7, -1, -1, -1, 11, -1, -1, -1, 15}};

// Column 4 g + i of 32, from group g of load_columns.
template <Family family, int g, int i>
inline Vec code_values(Ints codes) {
    constexpr int bits = traits_of(family).bits;
    if constexpr (!is_looked_up(traits_of(family))) return to_floats(shuffle_bytes(codes, kTopByte[i]));
    const Ints index = shift_right<bits == 4 ? 8 * i + g / 4 * 4 : 8 * i>(codes);
    const Vec low = load(kCodeValues<family>.values);
    if constexpr (bits == 5) return look_up_32(low, load(kCodeValues<family>.values + 16), index);
    return look_up_16(low, index);
}

template <Family family, int g>
inline Ints load_columns(const uint8_t* quants) {
    constexpr BlockTraits traits = traits_of(family);
    if constexpr (traits.bits == 4) return load_ints(quants + g % 4 * kGroupBytes);
    const Ints codes = load_group<family, g>(quants);
    return is_looked_up(traits) || traits.zero == 0 ? codes : sub_bytes(codes, splat_bytes(traits.zero));
}

// d s, over 2^24 where codes are not looked up, and -m t of a block's sub-blocks. Exact, as is a code times d s.
template <Family family>
struct BlockScales {
    static constexpr BlockTraits kTraits = traits_of(family);
    Vec scales[kTraits.num_subs()], minima[kTraits.has_min ? kTraits.num_subs() : 1];

    explicit BlockScales(const uint8_t* block) {
        const SubScaleBytes<family> subs(block);
        const Vec d = mul(load_scale<family>(block), splat(is_looked_up(kTraits) ? 1 : 0x1p-24f));
        const auto* halves = reinterpret_cast<const uint16_t*>(block + kTraits.min_at());
        const Vec m = kTraits.has_min ? sub(zero(), load_f16(halves)) : zero();
        for (int64_t i = 0; i < kTraits.num_subs(); ++i) {
            constexpr bool plain = kTraits.sub_scales == SubScales::none;
            scales[i] = plain ? d : mul(d, to_floats(load_signed(subs.scales + i * kTileRows)));
            if constexpr (kTraits.has_min) {
                minima[i] = plain ? m : mul(m, to_floats(load_signed(subs.mins + i * kTileRows)));
            }
        }
    }
    Vec value(Vec code, int64_t i) const {
        if constexpr (kTraits.has_min) return fma(code, scales[i], minima[i]);
        return mul(code, scales[i]);
    }
};

// 32 columns, from sub-block `first` on.
template <Family family, int g = 0>
inline void store_bf16_columns(const uint8_t* quants, const BlockScales<family>& scales, int64_t first, uint16_t* out) {
    const Ints codes = load_columns<family, g>(quants);
    const int64_t i = traits_of(family).sub_len == 16 ? first + g / 4 : first;
    store_ints(out, to_bf16_pairs(scales.value(code_values<family, g, 0>(codes), i),
                                  scales.value(code_values<family, g, 1>(codes), i)));
    store_ints(out + 2 * kPanelCols, to_bf16_pairs(scales.value(code_values<family, g, 2>(codes), i),
                                                   scales.value(code_values<family, g, 3>(codes), i)));
    if constexpr (g < 7) store_bf16_columns<family, g + 1>(quants, scales, first, out + 4 * kPanelCols);
}

// Rows past the end are zeros in memory.
template <Family family>
void decode_bf16_blocks(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, Panel& panel) {
    constexpr BlockTraits traits = traits_of(family);
    const int64_t block = row / kTileRows * (w.cols / traits.len) + k_begin / traits.len;
    const uint8_t* here = static_cast<const uint8_t*>(w.data) + block * traits.bytes();
    for (int64_t k = 0; k < k_len; k += traits.len, here += traits.bytes()) {
        const BlockScales<family> scales(here);
        for (int64_t step = 0; step < traits.len / 32; ++step) {
            prefetch_block<family>(here, step);
            store_bf16_columns<family>(here + traits.quants_at() + step * traits.group_bytes(), scales,
                                       step * 32 / traits.sub_len, panel.bf16[k / 2 + step * 16][0]);
        }
    }
}

// 32 values of a row from column k on, as they are, or rounded.
template <Family family>
inline Ints load_bf16_values(const Weight& w, int64_t row, int64_t k) {
    const auto* values = static_cast<const uint16_t*>(w.data) + row * w.cols + k;
    if constexpr (family == Family::f16) return to_bf16(load_f16(values), load_f16(values + kLanes));
    return load_ints(values);
}

// Row by row; pairs are transposed as what they are elsewhere: 32 bits.
template <Family family>
void decode_bf16_rows(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, Panel& panel) {
    for (int64_t k = 0; k < k_len; k += 2 * kLanes) {
        Vec pairs[kPanelCols];
        for (int64_t j = 0; j < kPanelCols; ++j) {
            pairs[j] = row + j < w.rows ? floats_of(load_bf16_values<family>(w, row + j, k_begin + k)) : zero();
        }
        store_transposed(pairs, reinterpret_cast<float*>(panel.bf16[k / 2]));
    }
}

// A strip is tiles of 16 rows by 32 columns; rows that do not exist are zeros.
void round_strip(const float* const* rows, int64_t m, int64_t k_len, int16_t* strip, float*) {
    for (int64_t i = 0; i < kTileSide; ++i) {
        for (int64_t k = 0; k < k_len; k += kTileDepth) {
            const Ints values = i < m ? to_bf16(load(rows[i] + k), load(rows[i] + k + kLanes)) : splat_ints(0);
            store_ints(strip + k * kTileSide + i * kTileDepth, values);
        }
    }
}

// Eight panels take 128 KiB of L2 and let rows that do not fit there come from L3 at 8 bytes a cycle; with 512 rows
// their slice of 512 columns is 512 KiB and the sums are 256. Pairs of panels make blocks of 2 x 2 tiles.
PromptForm bf16_form() {
    static_assert(kTileSide <= kMostStripRows, "drivers know how many rows a strip may have");
    return {kTileSide, true, 8, 2, 512};
}

template <int first>
void fill_block_panels(Kernels& table) {
    if constexpr (first < kNumFamilies) {
        table.decode_panel[first] = decode_bf16_blocks<static_cast<Family>(first)>;
        fill_block_panels<first + 1>(table);
    }
}

}  // namespace

void fill_codec(Kernels& table) {
    table.prompt_form = bf16_form;
    table.round_strip = round_strip;
    table.decode_panel[static_cast<int>(Family::bf16)] = decode_bf16_rows<Family::bf16>;
    table.decode_panel[static_cast<int>(Family::f16)] = decode_bf16_rows<Family::f16>;
    fill_block_panels<static_cast<int>(Family::i8)>(table);
}

}  // namespace qwick::ISA_NAMESPACE
