// Prompt rows in integers: what their definition and every instruction set agree on.
//
// A panel is 16 weight rows by up to 512 columns. Each row's values in it are rounded to integers of at most 2047 (by
// the double rounding below perhaps 2048) times one f32 scale, and so are 512 activations of a row. 512 products of
// two such integers stay below 2^31, so a dot is exact in any order:
//
//   y = fma(dot, weight scale * activation scale, y), one chain over the panels of a row
//
// Floats: scale = amax / 2047, integer = rint(x * (2047 / amax)).
//
// Blocks, whose values are a c - b (a = d s, b = m t in f32; c the code less its zero point), never become floats:
// a and b are scaled to 16-bit integers A and B once per sub-block, from a bound that needs no look at the codes.
// With p(x, y) = (x y + 2^14) >> 15, an instruction nearly everywhere:
//
//   no minima   bound = top * max |a|;          A = rint(a * (128 * 2047 / bound));  integer = p(2^8 c, A)
//               scale = bound / 2047
//   minima      wide = max (unit |a| + |b|);    S = 32752 / wide;  A = rint(a * (unit * S));  B = rint(b * S)
//               tight = max(|high a - b|, |b|, |low a| where b = 0);  R = rint(2047 * 2^15 / (tight * S))
//               integer = p(p(2^15 / unit * c, A) - B, R);  scale = 2^15 / (R * S)
//
// Maxima are over the row's sub-blocks in the panel. A row is all zeros where amax, bound or wide is below 2^-100 (its
// reciprocal would overflow) or not finite; the scale then is 0 or NaN, so that a NaN or an infinity reaches the
// output.
//
// Activations of a panel's columns lie in strips of 6 rows, the last one perhaps shorter: [k / 2][rows][2], in the
// order in which products read them.
#pragma once

#include "blocks.h"

namespace qwick {

constexpr int64_t kStripRows = 6;
// 64 KiB of panels and 96 KiB of activations: a panel stays in L1, its activations in L2 for the next panel; all rows
// would come from L3. Few rows: tile by tile.
constexpr PromptForm kIntForm = {kStripRows, false, 4, 1, 16 * kStripRows};

constexpr float kPanelTop = 2047, kWideTop = 32752;
constexpr int32_t kLeastBits = 0x0d800000;     // of 2^-100
constexpr int32_t kInfiniteBits = 0x7f800000;  // as integers, magnitudes of floats compare like floats, NaN on top
constexpr int32_t kQuietNanBits = 0x7fc00000;

// Codes of a family less their zero point.
struct CodeRange {
    int low, high;
    int top;    // the largest magnitude, for families without minima
    int shift;  // to the left, into 16 bits
    constexpr int unit() const { return 1 << (15 - shift); }
};

constexpr CodeRange code_range(const BlockTraits& traits) {
    if (!traits.has_min) {
        const int top = traits.codes == Codes::iq4   ? 127
                        : traits.codes == Codes::fp4 ? 12
                        : traits.bits == 8           ? 128
                                                     : traits.zero;
        return {-top, top, top, 8};
    }
    if (traits.zero) return {-traits.zero, traits.zero - 1, traits.zero, 13};  // u4s: files have three bits at most
    return {0, (1 << traits.bits) - 1, (1 << traits.bits) - 1, 15 - traits.bits};
}
static_assert(code_range(traits_of(Family::u4s)).unit() == traits_of(Family::u4s).zero, "4 is the unit of u4s");

}  // namespace qwick
