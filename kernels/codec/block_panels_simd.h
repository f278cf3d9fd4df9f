// Panels of prompt rows from blocks: codes lie k-major already, so there is nothing to transpose. Included after
// simd_<isa>.h.
#pragma once

#include "codec/block_codes_simd.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// One byte of each lane less the zero point, as floats.
template <Family family, int byte>
inline Vec code_values(Ints codes) {
    constexpr BlockTraits traits = traits_of(family);
    if constexpr (traits.is_signed()) return to_floats(shift_right_signed<24>(shift_left<24 - 8 * byte>(codes)));
    const Ints code = both(shift_right<8 * byte>(codes), splat_ints(0xff));
    return to_floats(traits.zero ? minus(code, splat_ints(traits.zero)) : code);
}

template <Family family, int byte>
inline void store_column(Ints codes, Vec scale, Vec min, float* out) {
    const Vec product = mul(scale, code_values<family, byte>(codes));
    store(out + byte * kPanelCols, round_bf16(traits_of(family).has_min ? sub(product, min) : product));
}

// 32 columns of kLanes rows. scales, mins: of each half of the columns.
template <Family family>
inline void decode_columns(const uint8_t* quants, const Vec (&scales)[2], const Vec (&mins)[2], float* out) {
    Ints codes[8];
    load_groups<family>(quants, codes);
    for (int g = 0; g < 8; ++g, out += 4 * kPanelCols) {
        const Vec scale = scales[g / 4], min = mins[g / 4];
        store_column<family, 0>(codes[g], scale, min, out);
        store_column<family, 1>(codes[g], scale, min, out);
        store_column<family, 2>(codes[g], scale, min, out);
        store_column<family, 3>(codes[g], scale, min, out);
    }
}

template <Family family>
inline void decode_block(const uint8_t* block, float* panel) {
    constexpr BlockTraits traits = traits_of(family);
    const SubScaleBytes<family> subs(block);
    for (int part = 0; part < kTileParts; ++part) {
        const int64_t first = part * kLanes;
        const Vec d = load_scale<family>(block + 2 * first);
        const Vec m = traits.has_min ? load_f16(reinterpret_cast<const uint16_t*>(block + traits.min_at()) + first) : d;
        Vec scales[2] = {d, d}, mins[2] = {m, m};
        for (int64_t k = 0; k < traits.len; k += 32) {
            if constexpr (traits.sub_scales != SubScales::none) {
                for (int half = 0; half < 2; ++half) {
                    const int64_t at = (k + 16 * half) / traits.sub_len * kTileRows + first;
                    scales[half] = mul(d, to_floats(load_signed(subs.scales + at)));
                    if (traits.has_min) mins[half] = mul(m, to_floats(load_signed(subs.mins + at)));
                }
            }
            const uint8_t* quants = block + traits.quants_at() + k / 32 * traits.group_bytes() + part * kPartBytes;
            decode_columns<family>(quants, scales, mins, panel + k * kPanelCols + first);
        }
    }
}

// Rows past the end are zeros in memory.
template <Family family>
void decode_block_panel(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, float* panel) {
    constexpr BlockTraits traits = traits_of(family);
    const int64_t block = row / kTileRows * (w.cols / traits.len) + k_begin / traits.len;
    const auto* data = static_cast<const uint8_t*>(w.data) + block * traits.bytes();
    for (int64_t k = 0; k < k_len; k += traits.len, data += traits.bytes()) {
        decode_block<family>(data, panel + k * kPanelCols);
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
