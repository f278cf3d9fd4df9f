// Panels of prompt rows from blocks (codec/panel.h): codes lie k-major already, so there is nothing to transpose, and
// become integers without ever being floats. Included after simd_<isa>.h.
#pragma once

#include "codec/block_codes_simd.h"
#include "codec/panel.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// Bytes 0 and 1, or 2 and 3 of each lane, as the high bytes of its two halves.
constexpr int8_t kFirstPair[16] = {-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13};
constexpr int8_t kSecondPair[16] = {-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15};

inline Ints magnitude(Vec v) {
    return bits_of(abs(v));
}
inline Ints usable_bits(Ints largest) {  // where neither too small nor infinite nor NaN
    return both(where_greater(largest, splat_ints(kLeastBits - 1)), where_greater(splat_ints(kInfiniteBits), largest));
}
inline Ints either_where(Ints mask, Ints a, Ints b) {  // a where the mask is set
    return either(both(mask, a), both(minus(splat_ints(-1), mask), b));
}
inline Vec scale_or_none(Ints usable, Vec scale, Ints largest) {
    const Ints nan = both(where_greater(largest, splat_ints(kInfiniteBits - 1)), splat_ints(kQuietNanBits));
    return floats_of(either_where(usable, bits_of(scale), nan));
}
inline Ints pairs_of_same(Ints v) {
    return pairs_of(v, v);
}

// What is computed once per panel, for kLanes rows: a and b of each sub-block, and how to round them.
template <Family family>
struct PanelPart {
    static constexpr BlockTraits kTraits = traits_of(family);
    static constexpr CodeRange kRange = code_range(kTraits);
    static constexpr int64_t kMaxSubs = kPanelDepth / kTraits.sub_len;

    Vec a[kMaxSubs], b[kTraits.has_min ? kMaxSubs : 1];
    int64_t num_subs = 0;
    Ints usable;
    Vec a_factor, b_factor;
    Ints last;  // R

    void load_block(const uint8_t* block, const SubScaleBytes<family>& subs, int64_t first) {
        const Vec d = load_scale<family>(block + 2 * first);
        const auto* halves = reinterpret_cast<const uint16_t*>(block + kTraits.min_at());
        const Vec m = kTraits.has_min ? load_f16(halves + first) : d;
        for (int64_t sub = 0; sub < kTraits.num_subs(); ++sub, ++num_subs) {
            constexpr bool plain = kTraits.sub_scales == SubScales::none;
            const int64_t at = sub * kTileRows + first;
            a[num_subs] = plain ? d : mul(d, to_floats(load_signed(subs.scales + at)));
            if constexpr (kTraits.has_min) b[num_subs] = plain ? m : mul(m, to_floats(load_signed(subs.mins + at)));
        }
    }

    // Returns the rows' scales.
    Vec choose_scales() {
        if constexpr (kTraits.has_min) return choose_with_minima();
        Ints largest = splat_ints(0);
        for (int64_t sub = 0; sub < num_subs; ++sub) largest = larger(largest, magnitude(a[sub]));
        const Vec bound = mul(splat(kRange.top), floats_of(largest));
        usable = usable_bits(bits_of(bound));
        a_factor = div(splat(128 * kPanelTop), bound);
        return scale_or_none(usable, div(bound, splat(kPanelTop)), bits_of(bound));
    }

    Vec choose_with_minima() {
        constexpr auto ratio = static_cast<float>(kRange.unit());
        const Vec unit = splat(ratio), high = splat(kRange.high), low = splat(kRange.low);
        Ints wide = splat_ints(0), tight = wide;
        for (int64_t sub = 0; sub < num_subs; ++sub) {
            wide = larger(wide, bits_of(add(mul(unit, abs(a[sub])), abs(b[sub]))));
            tight = larger(tight, magnitude(ISA_NAMESPACE::sub(mul(high, a[sub]), b[sub])));
            const Ints none = where_greater(splat_ints(1), magnitude(b[sub]));
            tight = larger(tight, either_where(none, magnitude(mul(low, a[sub])), magnitude(b[sub])));
        }
        usable = usable_bits(wide);
        b_factor = div(splat(kWideTop), floats_of(wide));
        a_factor = mul(unit, b_factor);
        const Vec rounded = to_floats(to_ints(div(splat(kPanelTop * 32768), mul(floats_of(tight), b_factor))));
        last = pairs_of_same(both(to_ints(rounded), usable));
        return scale_or_none(usable, div(splat(32768), mul(rounded, b_factor)), wide);
    }
    Ints scale_pairs(int64_t sub) const { return pairs_of_same(both(to_ints(mul(a[sub], a_factor)), usable)); }
    Ints min_pairs(int64_t sub) const {
        if constexpr (!kTraits.has_min) return usable;
        return pairs_of_same(both(to_ints(mul(b[kTraits.has_min ? sub : 0], b_factor)), usable));
    }
};

template <Family family>
inline void store_pair(Ints codes, Ints scale, Ints min, Ints last, int16_t* out) {
    const Ints product = mul_round(codes, scale);
    if constexpr (!traits_of(family).has_min) store_ints(out, product);
    if constexpr (traits_of(family).has_min) store_ints(out, mul_round(sub_pairs(product, min), last));
}

// 32 columns of kLanes rows, whose codes begin at `quants`, in sub-blocks from `sub` on.
template <Family family>
inline void store_columns(const uint8_t* quants, const PanelPart<family>& part, int64_t sub, int16_t* out) {
    constexpr BlockTraits traits = traits_of(family);
    constexpr int up = code_range(traits).shift - 8;
    Ints codes[8], scales[2], mins[2];
    load_groups<family>(quants, codes);
    for (int half = 0; half < 2; ++half) {
        const int64_t at = traits.sub_len == 16 ? sub + half : sub;
        scales[half] = part.scale_pairs(at);
        mins[half] = part.min_pairs(at);
    }
    for (int g = 0; g < 8; ++g, out += 4 * kPanelCols) {
        Ints placed = shift_left<up>(codes[g]);
        if (traits.zero) placed = sub_bytes(placed, splat_bytes(traits.zero << up));
        store_pair<family>(shuffle_bytes(placed, kFirstPair), scales[g / 4], mins[g / 4], part.last, out);
        store_pair<family>(shuffle_bytes(placed, kSecondPair), scales[g / 4], mins[g / 4], part.last,
                           out + 2 * kPanelCols);
    }
}

// Rows past the end are zeros in memory.
template <Family family>
void decode_block_panel(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, Panel& panel) {
    constexpr BlockTraits traits = traits_of(family);
    const int64_t block = row / kTileRows * (w.cols / traits.len) + k_begin / traits.len;
    const auto* data = static_cast<const uint8_t*>(w.data) + block * traits.bytes();
    PanelPart<family> parts[kTileParts];
    for (int64_t k = 0; k < k_len; k += traits.len) {
        const uint8_t* here = data + k / traits.len * traits.bytes();
        const SubScaleBytes<family> subs(here);
        for (int64_t step = 0; step < traits.len / 32; ++step) prefetch_block<family>(here, step);
        for (int part = 0; part < kTileParts; ++part) parts[part].load_block(here, subs, part * kLanes);
    }
    for (int part = 0; part < kTileParts; ++part) {
        store(panel.scales + part * kLanes, parts[part].choose_scales());
        for (int64_t k = 0; k < k_len; k += 32) {
            const uint8_t* here = data + k / traits.len * traits.bytes() + traits.quants_at();
            const uint8_t* quants = here + k % traits.len / 32 * traits.group_bytes() + part * kPartBytes;
            store_columns<family>(quants, parts[part], k / traits.sub_len, panel.codes[k / 2][part * kLanes]);
        }
    }
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
