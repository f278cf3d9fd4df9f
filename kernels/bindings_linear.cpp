#include "bindings_linear.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <tuple>
#include <vector>

#include "bindings_arrays.h"
#include "blocks.h"
#include "tensor.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace qwick {
namespace {

// A weight copied into memory of exactly its size, so that the address sanitizer sees a read past its end.
class Copied {
  public:
    explicit Copied(const Tensor& tensor)
        : weight_(tensor.matrix()), bytes_(static_cast<std::byte*>(::operator new(tensor.num_bytes(), kAligned))) {
        std::memcpy(bytes_, tensor.bytes(), tensor.num_bytes());
        weight_.data = bytes_;
    }
    ~Copied() { ::operator delete(bytes_, kAligned); }
    Copied(const Copied&) = delete;
    Copied& operator=(const Copied&) = delete;

    const Weight& operator*() const { return weight_; }
    const Weight* operator->() const { return &weight_; }
    int family() const { return static_cast<int>(weight_.family); }
    int64_t together() const { return is_blocks(weight_.family) ? kTileRows : 1; }  // rows that begin together

  private:
    static constexpr std::align_val_t kAligned{64};
    Weight weight_;
    std::byte* bytes_;
};

auto quantize_i8(const std::string& isa, const In<float, 1>& x) {
    require(x.size() % kQuantBlock == 0, "k is a multiple of the block");
    Made<int8_t> q({x.size()});
    Made<float> d({x.size() / kQuantBlock});
    Made<int16_t> sums({x.size() / 16});
    kernels_of(isa).quantize_i8(x.data(), x.size(), q.data, d.data, sums.data);
    return std::tuple(q.array, d.array, sums.array);
}

// Activations of block families are quantised first, by the same instruction set.
Out dots(const std::string& isa, const In<float, 2>& x, const Tensor& weight, int64_t begin, int64_t end) {
    const Kernels kernels = kernels_of(isa);
    const Copied w(weight);
    const auto m = static_cast<int64_t>(x.shape(0)), k = static_cast<int64_t>(x.shape(1));
    require(k == w->cols && 0 <= begin && begin <= end && end <= w->rows, "shapes agree");
    require(begin % w.together() == 0, "rows begin with a tile");
    std::vector<int8_t> q(m * k);
    std::vector<float> d(m * (k / 32));
    std::vector<int16_t> sums(m * (k / 16));
    if (is_blocks(w->family)) kernels.quantize_i8(x.data(), m * k, q.data(), d.data(), sums.data());
    std::vector<uint8_t> shifted(m * k);
    for (int64_t i = 0; i < m * k; ++i) shifted[i] = static_cast<uint8_t>(q[i] + 128);
    Made<float> y({x.shape(0), static_cast<size_t>(end - begin)});
    const Rows rows{m, k, x.data(), k, q.data(), d.data(), sums.data(), shifted.data()};
    kernels.dots[w.family()](rows, *w, begin, end, y.data, end - begin);
    return y.array;
}

// One panel's worth of activations: (integers, their scale).
auto quantize_i16(const std::string& isa, const In<float, 1>& x) {
    require(x.size() % 32 == 0 && x.size() <= kPanelDepth, "at most 512 values, a multiple of 32");
    Made<int16_t> q({x.size()});
    const float scale = kernels_of(isa).quantize_i16(x.data(), x.size(), q.data);
    return std::tuple(q.array, scale);
}

Out decode_row(const std::string& isa, const Tensor& weight, int64_t row) {
    const Copied w(weight);
    require(0 <= row && row < w->rows, "the row exists");
    Made<float> out({static_cast<size_t>(w->cols)});
    kernels_of(isa).decode_row[w.family()](*w, row, out.data);
    return out.array;
}

// f32: [k_len, 16] values. Others: (integers [k_len, 16], scales [16]).
nb::object decode_panel(const std::string& isa, const Tensor& weight, int64_t row, int64_t k_begin, int64_t k_len) {
    const Copied w(weight);
    const int64_t block = is_blocks(w->family) ? traits_of(w->family).len : 32;
    require(0 <= row && row < w->rows && 0 <= k_begin && 0 <= k_len && k_begin + k_len <= w->cols, "the panel exists");
    require(row % w.together() == 0 && k_begin % block == 0 && k_len % block == 0, "it is cut at blocks");
    require(k_len <= kPanelDepth, "it has at most 512 columns");
    const auto panel = std::make_unique<Panel>();
    kernels_of(isa).decode_panel[w.family()](*w, row, k_begin, k_len, *panel);
    if (w->family == Family::f32) {
        Made<float> values({static_cast<size_t>(k_len), kPanelCols});
        std::copy_n(panel->values[0], k_len * kPanelCols, values.data);
        return nb::cast(values.array);
    }
    Made<int16_t> codes({static_cast<size_t>(k_len), kPanelCols});
    for (int64_t k = 0; k < k_len; ++k) {
        for (int64_t j = 0; j < kPanelCols; ++j) codes.data[k * kPanelCols + j] = panel->codes[k / 2][j][k % 2];
    }
    Made<float> scales({static_cast<size_t>(kPanelCols)});
    std::copy_n(panel->scales, kPanelCols, scales.data);
    return nb::make_tuple(codes.array, scales.array);
}

Made<float> sums_from(const std::optional<In<float, 2>>& y, size_t rows) {
    require(!y || (y->shape(0) == rows && y->shape(1) == kPanelCols), "y is [m, 16]");
    Made<float> out({rows, kPanelCols});
    if (y) std::copy_n(y->data(), y->size(), out.data);
    return out;
}

// `y` is what to add to; None starts from zero.
Out panel_product(const std::string& isa, const In<float, 2>& x, const In<float, 2>& values,
                  const std::optional<In<float, 2>>& y) {
    require(values.shape(0) == x.shape(1) && values.shape(1) == kPanelCols, "the panel is [k, 16]");
    require(values.shape(0) <= kPanelDepth, "it has at most 512 columns");
    const auto panel = std::make_unique<Panel>();
    std::copy_n(values.data(), values.size(), panel->values[0]);
    Made<float> out = sums_from(y, x.shape(0));
    kernels_of(isa).panel_product(x.data(), x.shape(1), x.shape(0), *panel, x.shape(1), !y, out.data, kPanelCols);
    return out.array;
}

// x [m, k] and codes [k, 16] are integers, d [m] and scales [16] their scales.
Out int_panel_product(const std::string& isa, const In<int16_t, 2>& x, const In<float, 1>& d,
                      const In<int16_t, 2>& codes, const In<float, 1>& scales, const std::optional<In<float, 2>>& y) {
    const auto m = static_cast<int64_t>(x.shape(0)), k = static_cast<int64_t>(x.shape(1));
    require(codes.shape(0) == x.shape(1) && codes.shape(1) == kPanelCols, "codes are [k, 16]");
    require(k <= kPanelDepth && k % 32 == 0, "k is a multiple of 32 and at most 512");
    require(d.size() == x.shape(0) && scales.size() == kPanelCols, "a scale for each row");
    const auto panel = std::make_unique<Panel>();
    for (int64_t kk = 0; kk < k; ++kk) {
        for (int64_t j = 0; j < kPanelCols; ++j) panel->codes[kk / 2][j][kk % 2] = codes.data()[kk * kPanelCols + j];
    }
    std::copy_n(scales.data(), kPanelCols, panel->scales);
    std::vector<int16_t> strips(m * k);
    for (int64_t i = 0; i < m; ++i) {
        const int64_t strip = i / kStripRows * kStripRows, rows = std::min(m - strip, kStripRows);
        for (int64_t kk = 0; kk < k; ++kk) {
            strips[strip * k + (kk / 2 * rows + i - strip) * 2 + kk % 2] = x.data()[i * k + kk];
        }
    }
    Made<float> out = sums_from(y, x.shape(0));
    kernels_of(isa).int_panel_product({m, strips.data(), d.data()}, *panel, k, !y, out.data, kPanelCols);
    return out.array;
}

}  // namespace

void bind_linear(nb::module_& leaves) {
    leaves.def("quantize_i8", quantize_i8, "isa"_a, "x"_a);
    leaves.def("dots", dots, "isa"_a, "x"_a, "weight"_a, "begin"_a, "end"_a);
    leaves.def("quantize_i16", quantize_i16, "isa"_a, "x"_a);
    leaves.def("decode_row", decode_row, "isa"_a, "weight"_a, "row"_a);
    leaves.def("decode_panel", decode_panel, "isa"_a, "weight"_a, "row"_a, "k_begin"_a, "k_len"_a);
    leaves.def("panel_product", panel_product, "isa"_a, "x"_a, "values"_a, "y"_a = nb::none());
    leaves.def("int_panel_product", int_panel_product, "isa"_a, "x"_a, "d"_a, "codes"_a, "scales"_a,
               "y"_a = nb::none());
}

}  // namespace qwick
