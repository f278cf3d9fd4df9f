#include "bindings_linear.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <tuple>
#include <vector>

#include "bindings_arrays.h"
#include "blocks.h"
#include "codec/panel.h"
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

// A strip of activations in one panel's columns, as it lies: (integers or bf16 bits, scales [m]).
auto round_strip(const std::string& isa, const In<float, 2>& x) {
    const Kernels kernels = kernels_of(isa);
    const PromptForm form = kernels.prompt_form();
    const size_t m = x.shape(0), k = x.shape(1);
    require(k % 32 == 0 && k <= kPanelDepth, "at most 512 values, a multiple of 32");
    require(0 < m && static_cast<int64_t>(m) <= form.strip_rows, "rows of one strip");
    Made<int16_t> strip({(form.whole_strips ? form.strip_rows : m) * k});
    Made<float> scales({m});
    std::vector<const float*> rows;
    for (size_t i = 0; i < m; ++i) rows.push_back(x.data() + i * k);
    kernels.round_strip(rows.data(), m, k, strip.data, scales.data);
    return std::tuple(strip.array, scales.array);
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

void put_pairs(const In<int16_t, 2>& values, int64_t first_col, Panel& panel) {
    for (size_t k = 0; k < values.shape(0); ++k) {
        for (int64_t j = 0; j < kPanelCols; ++j) {
            panel.codes[k / 2][j][k % 2] = values.data()[k * values.shape(1) + first_col + j];
        }
    }
}

// x [m, k] and codes [k, 16] are integers, d [m] and scales [16] their scales.
Out int_strip_product(const std::string& isa, const In<int16_t, 2>& x, const In<float, 1>& d,
                      const In<int16_t, 2>& codes, const In<float, 1>& scales, const std::optional<In<float, 2>>& y) {
    require(isa != "amx", "its products are of bf16");
    const auto m = static_cast<int64_t>(x.shape(0)), k = static_cast<int64_t>(x.shape(1));
    require(codes.shape(0) == x.shape(1) && codes.shape(1) == kPanelCols, "codes are [k, 16]");
    require(k <= kPanelDepth && k % 32 == 0, "k is a multiple of 32 and at most 512");
    require(d.size() == x.shape(0) && scales.size() == kPanelCols, "a scale for each row");
    const auto panel = std::make_unique<Panel>();
    put_pairs(codes, 0, *panel);
    std::copy_n(scales.data(), kPanelCols, panel->scales);
    std::vector<int16_t> strips(m * k);
    for (int64_t i = 0; i < m; ++i) {
        const int64_t strip = i / kStripRows * kStripRows, rows = std::min(m - strip, kStripRows);
        for (int64_t kk = 0; kk < k; ++kk) {
            strips[strip * k + (kk / 2 * rows + i - strip) * 2 + kk % 2] = x.data()[i * k + kk];
        }
    }
    Made<float> out = sums_from(y, x.shape(0));
    kernels_of(isa).strip_product({m, strips.data(), d.data()}, panel.get(), 1, k, !y, out.data, kPanelCols);
    return out.array;
}

// bf16 bits: x [m, k] and w [k, n], n of whole panels.
Out bf16_strip_product(const std::string& isa, const In<int16_t, 2>& x, const In<int16_t, 2>& w,
                       const std::optional<In<float, 2>>& y) {
    require(isa == "amx", "only its products are of bf16");
    const size_t m = x.shape(0), k = x.shape(1), n = w.shape(1), side = 16, padded = (m + side - 1) / side * side;
    require(w.shape(0) == k && k <= kPanelDepth && k % 32 == 0 && n % kPanelCols == 0, "panels are whole");
    require(!y || (y->shape(0) == m && y->shape(1) == n), "y is [m, n]");
    std::vector<Panel> panels(n / kPanelCols);
    for (size_t p = 0; p < panels.size(); ++p) put_pairs(w, p * kPanelCols, panels[p]);
    std::vector<int16_t> strips(padded * k);
    for (size_t i = 0; i < m; ++i) {
        for (size_t kk = 0; kk < k; ++kk) {
            strips[i / side * side * k + kk / 32 * 32 * side + i % side * 32 + kk % 32] = x.data()[i * k + kk];
        }
    }
    std::vector<float> sums(padded * n, std::numeric_limits<float>::quiet_NaN());
    if (y) std::copy_n(y->data(), y->size(), sums.data());
    kernels_of(isa).strip_product({static_cast<int64_t>(m), strips.data(), nullptr}, panels.data(), panels.size(), k,
                                  !y, sums.data(), n);
    Made<float> out({m, n});
    std::copy_n(sums.data(), m * n, out.data);
    return out.array;
}

}  // namespace

void bind_linear(nb::module_& leaves) {
    leaves.def("quantize_i8", quantize_i8, "isa"_a, "x"_a);
    leaves.def("dots", dots, "isa"_a, "x"_a, "weight"_a, "begin"_a, "end"_a);
    leaves.def("round_strip", round_strip, "isa"_a, "x"_a);
    leaves.def("decode_row", decode_row, "isa"_a, "weight"_a, "row"_a);
    leaves.def("decode_panel", decode_panel, "isa"_a, "weight"_a, "row"_a, "k_begin"_a, "k_len"_a);
    leaves.def("panel_product", panel_product, "isa"_a, "x"_a, "values"_a, "y"_a = nb::none());
    leaves.def("int_strip_product", int_strip_product, "isa"_a, "x"_a, "d"_a, "codes"_a, "scales"_a,
               "y"_a = nb::none());
    leaves.def("bf16_strip_product", bf16_strip_product, "isa"_a, "x"_a, "w"_a, "y"_a = nb::none());
}

}  // namespace qwick
