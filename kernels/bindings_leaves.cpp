#include "bindings_leaves.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "attention/kv_block.h"
#include "bindings_arrays.h"
#include "bindings_linear.h"
#include "cpu_features.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace qwick {
namespace {

template <class Array>
Made<float> copy_of(const Array& source) {
    std::vector<size_t> shape;
    for (size_t i = 0; i < source.ndim(); ++i) shape.push_back(source.shape(i));
    Made<float> made(shape);
    std::copy_n(source.data(), source.size(), made.data);
    return made;
}

Out elementwise(const std::string& isa, const std::string& name, const In<float, 1>& a, const In<float, 1>& b) {
    const Kernels kernels = kernels_of(isa);
    require(a.size() == b.size(), "sizes agree");
    require(name == "add" || name == "silu_mul" || name == "sigmoid_mul", "add, silu_mul or sigmoid_mul");
    Made<float> out({a.size()});
    const auto leaf = name == "add" ? kernels.add : name == "silu_mul" ? kernels.silu_mul : kernels.sigmoid_mul;
    leaf(a.data(), b.data(), a.size(), out.data);
    return out.array;
}

// `gate` None: rms_norm.
Out rms_norm(const std::string& isa, const In<float, 1>& x, const In<float, 1>& w, float eps,
             const std::optional<In<float, 1>>& gate) {
    const Kernels kernels = kernels_of(isa);
    require(x.size() % 16 == 0 && w.size() == x.size() && (!gate || gate->size() == x.size()), "sizes agree");
    Made<float> out({x.size()});
    if (gate) {
        kernels.gated_rms_norm(x.data(), gate->data(), w.data(), eps, x.size(), out.data);
    } else {
        kernels.rms_norm(x.data(), w.data(), eps, x.size(), out.data);
    }
    return out.array;
}

Out l2_norm(const std::string& isa, const In<float, 1>& x, float scale, bool in_place) {
    require(x.size() % 16 == 0, "n is a multiple of 16");
    Made<float> out({x.size()});
    if (in_place) std::copy_n(x.data(), x.size(), out.data);
    kernels_of(isa).l2_norm(in_place ? out.data : x.data(), x.size(), scale, out.data);
    return out.array;
}

Out norm_rope(const std::string& isa, const In<float, 1>& x, const In<float, 1>& w, float eps, const In<float, 1>& cos,
              const In<float, 1>& sin) {
    require(x.size() % 16 == 0 && w.size() == x.size(), "head_dim is a multiple of 16");
    require(cos.size() == sin.size() && 2 * cos.size() <= x.size(), "rotary_dim is at most head_dim");
    Made<float> out({x.size()});
    kernels_of(isa).norm_rope(x.data(), w.data(), eps, cos.data(), sin.data(), x.size(), 2 * cos.size(), out.data);
    return out.array;
}

// rows [taps - 1 + tokens, channels]; returns [tokens, channels].
Out conv_silu(const std::string& isa, const In<float, 2>& rows, const In<float, 2>& taps) {
    const size_t num_taps = taps.shape(0), channels = taps.shape(1);
    require(channels % 16 == 0 && num_taps > 0 && rows.shape(0) >= num_taps && rows.shape(1) == channels,
            "rows [taps - 1 + tokens, channels], taps [taps, channels]");
    std::vector<const float*> starts;
    for (size_t i = 0; i < rows.shape(0); ++i) starts.push_back(rows.data() + i * channels);
    const size_t tokens = rows.shape(0) - num_taps + 1;
    Made<float> out({tokens, channels});
    kernels_of(isa).conv_silu(starts.data(), taps.data(), channels, num_taps, channels, tokens, out.data, channels);
    return out.array;
}

// state [k_dim * v_dim] in tiles as kernels.h says; returns out [tokens, v_dim] (zero outside the lanes) and the new
// state.
auto delta_run(const std::string& isa, const In<float, 1>& state, const In<float, 2>& q, const In<float, 2>& k,
               const In<float, 2>& v, const In<float, 1>& g, const In<float, 1>& beta, int64_t v_begin, int64_t v_end) {
    const auto tokens = static_cast<int64_t>(q.shape(0)), k_dim = static_cast<int64_t>(q.shape(1));
    const auto v_dim = static_cast<int64_t>(v.shape(1));
    require(k_dim % 16 == 0 && v_dim % 16 == 0 && static_cast<int64_t>(state.size()) == k_dim * v_dim, "sizes agree");
    require(k.shape(0) == q.shape(0) && k.shape(1) == q.shape(1) && v.shape(0) == q.shape(0), "tokens agree");
    require(g.size() == q.shape(0) && beta.size() == q.shape(0), "tokens agree");
    require(v_begin % kDeltaTile == 0 && v_end % kDeltaTile == 0, "lanes are whole tiles");
    require(0 <= v_begin && v_begin <= v_end && v_end <= v_dim, "lanes exist");
    Made<float> s = copy_of(state), out({v.shape(0), v.shape(1)});
    kernels_of(isa).delta_run(s.data, k_dim, v_dim, v_begin, v_end, tokens, q.data(), k.data(), k_dim, v.data(), v_dim,
                              g.data(), beta.data(), 1, out.data, v_dim);
    return std::pair(out.array, s.array);
}

// keys, values: blocks as store_kv makes them. `prompt`: by the leaves of prompt rows. Returns the new m, l, acc.
auto attend_block(const std::string& isa, const std::string& kv_format, const In<float, 2>& query,
                  const In<uint8_t, 1>& keys, const In<uint8_t, 1>& values, const In<int32_t, 1>& visible,
                  const In<float, 1>& m, const In<float, 1>& l, const In<float, 2>& acc, bool with_next, bool prompt) {
    const Kernels kernels = kernels_of(isa);
    const KvFormat format = kv_format_named(kv_format);
    const size_t rows = query.shape(0), head_dim = query.shape(1), bytes = kv_block_bytes(format, head_dim);
    require(
        head_dim % (format == KvFormat::q8_0 ? kKvGroup : 16) == 0 && keys.size() == bytes && values.size() == bytes,
        "keys and values are blocks");
    require(!prompt || (head_dim % kKvGroup == 0 && static_cast<int64_t>(head_dim) <= kMostPromptDims),
            "prompts have whole groups of at most 256");
    require(visible.size() == rows && m.size() == rows && l.size() == rows && acc.size() == rows * head_dim,
            "rows agree");
    for (size_t r = 0; r < rows; ++r) require(0 <= visible.data()[r] && visible.data()[r] <= 64, "at most 64 keys");
    Made<float> new_m = copy_of(m), new_l = copy_of(l), new_acc = copy_of(acc), loaded({rows, head_dim});
    const auto load_query = (prompt ? kernels.load_prompt_query : kernels.load_query)[static_cast<int>(format)];
    for (size_t r = 0; r < rows; ++r) load_query(query.data() + r * head_dim, head_dim, 1, loaded.data + r * head_dim);
    std::vector<uint8_t> block(keys.data(), keys.data() + bytes);
    block.insert(block.end(), values.data(), values.data() + bytes);
    const std::vector<uint8_t> next(block.size());  // to read ahead into
    const auto count = static_cast<int64_t>(rows), dim = static_cast<int64_t>(head_dim);
    (prompt ? kernels.attend_prompt : kernels.attend_block)[static_cast<int>(format)](
        {count, dim, loaded.data, visible.data(), new_m.data, new_l.data, new_acc.data},
        {block.data(), with_next ? next.data() : nullptr});
    return std::tuple(new_m.array, new_l.array, new_acc.array);
}

// A block of 64 keys or values, of which x [n, head_dim] are the first n; the rest is 0xff, a NaN in most formats.
auto store_kv(const std::string& isa, const std::string& kv_format, const In<float, 2>& x, bool values) {
    const Kernels kernels = kernels_of(isa);
    const KvFormat format = kv_format_named(kv_format);
    const auto n = static_cast<int64_t>(x.shape(0)), head_dim = static_cast<int64_t>(x.shape(1));
    require(n <= kBlockLen && head_dim % (format == KvFormat::q8_0 ? kKvGroup : 16) == 0, "64 rows of whole groups");
    Made<uint8_t> block({static_cast<size_t>(kv_block_bytes(format, head_dim))});
    std::fill_n(block.data, block.array.size(), uint8_t{0xff});
    const auto store = (values ? kernels.store_value : kernels.store_key)[static_cast<int>(format)];
    for (int64_t key = 0; key < n; ++key) store(x.data() + key * head_dim, head_dim, key, block.data);
    return block.array;
}

float max_value(const std::string& isa, const In<float, 1>& x) {
    return kernels_of(isa).max_value(x.data(), x.size());
}

float sum_exp(const std::string& isa, const In<float, 1>& x, float max) {
    return kernels_of(isa).sum_exp(x.data(), x.size(), max);
}

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const Isa isa : possible_isas()) names.emplace_back(isa_name(isa));
    return names;
}

}  // namespace

void bind_leaves(nb::module_& module) {
    nb::module_ leaves =
        module.def_submodule("leaves", "Each leaf kernel of each instruction set by itself; for tests.");
    leaves.def("isas", isas);
    bind_linear(leaves);
    leaves.def("elementwise", elementwise, "isa"_a, "name"_a, "a"_a, "b"_a);
    leaves.def("rms_norm", rms_norm, "isa"_a, "x"_a, "w"_a, "eps"_a, "gate"_a = nb::none());
    leaves.def("l2_norm", l2_norm, "isa"_a, "x"_a, "scale"_a, "in_place"_a = false);
    leaves.def("norm_rope", norm_rope, "isa"_a, "x"_a, "w"_a, "eps"_a, "cos"_a, "sin"_a);
    leaves.def("conv_silu", conv_silu, "isa"_a, "rows"_a, "taps"_a);
    leaves.def("delta_run", delta_run, "isa"_a, "state"_a, "q"_a, "k"_a, "v"_a, "g"_a, "beta"_a, "v_begin"_a,
               "v_end"_a);
    leaves.def("attend_block", attend_block, "isa"_a, "kv_format"_a, "query"_a, "keys"_a, "values"_a, "visible"_a,
               "m"_a, "l"_a, "acc"_a, "with_next"_a = true, "prompt"_a = false);
    leaves.def("store_kv", store_kv, "isa"_a, "kv_format"_a, "x"_a, "values"_a);
    leaves.def("max_value", max_value, "isa"_a, "x"_a);
    leaves.def("sum_exp", sum_exp, "isa"_a, "x"_a, "max"_a);
}

}  // namespace qwick
