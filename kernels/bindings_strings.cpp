// Arrays of strings as GGUF files hold them: each after its length, 8 bytes, little endian. A vocabulary and its merges
// are half a million of them, and until they are Python's a model cannot start: loops of Python take 0.3 s for it.
#include "bindings_strings.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "errors.h"
#include "string_table.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace qwick {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ends = nb::ndarray<uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kBeyond = uint64_t{1} << 62;  // stands for an end that no file reaches

// Fills ends[done ..] as far as the lengths are in `data`; returns how many are known then. The last one known may lie
// behind the data.
size_t scan_strings(const Bytes& data, const Ends& ends, size_t done) {
    const uint64_t size = data.shape(0);
    if (done > ends.shape(0)) throw KernelError("more strings are known than there are");
    for (uint64_t at = done > 0 ? ends.data()[done - 1] : 0; done < ends.shape(0); ++done) {
        if (at > size || size - at < kLengthBytes) break;
        uint64_t length;
        std::memcpy(&length, data.data() + at, kLengthBytes);
        at = std::min(kBeyond, at + kLengthBytes + std::min(length, kBeyond));
        ends.data()[done] = at;
    }
    return done;
}

nb::object text(const uint8_t* begin, uint64_t bytes) {
    PyObject* made =
        PyUnicode_DecodeUTF8(reinterpret_cast<const char*>(begin), static_cast<Py_ssize_t>(bytes), nullptr);
    if (!made) throw nb::python_error();
    return nb::steal(made);
}

StringList checked(const Bytes& data, const Ends& ends) {
    uint64_t at = 0;
    for (size_t i = 0; i < ends.shape(0); ++i) {
        const uint64_t end = ends.data()[i];
        if (end > data.shape(0) || end < at + kLengthBytes) throw KernelError("strings lie outside their data");
        at = end;
    }
    return {data.data(), ends.data(), ends.shape(0)};
}

// A list with one(begin, bytes) for each string.
template <class One>
nb::list list_of(const Bytes& data, const Ends& ends, One one) {
    const StringList strings = checked(data, ends);
    nb::list made = nb::steal<nb::list>(PyList_New(static_cast<Py_ssize_t>(strings.count)));
    if (!made.is_valid()) throw nb::python_error();
    for (size_t i = 0; i < strings.count; ++i) {
        const std::string_view string = strings[i];
        nb::object item = one(reinterpret_cast<const uint8_t*>(string.data()), string.size());
        PyList_SET_ITEM(made.ptr(), static_cast<Py_ssize_t>(i), item.release().ptr());
    }
    return made;
}

std::pair<std::string, size_t> check(const Bytes& tokens, const Ends& token_ends, const Bytes& kinds,
                                     const Bytes& merges, const Ends& merge_ends) {
    const StringList token_list = checked(tokens, token_ends), merge_list = checked(merges, merge_ends);
    if (kinds.shape(0) != token_list.count) throw KernelError("kinds is not one number for each token");
    const nb::gil_scoped_release no_gil;
    const VocabularyFault fault = check_vocabulary(token_list, kinds.data(), merge_list);
    constexpr const char* kNames[] = {"", "token twice", "merge of not two", "merge of no token"};
    return {kNames[fault.kind], fault.index};
}

// What stands on either side of the only space of each string; None where there is not just one.
nb::object pair(const uint8_t* begin, uint64_t bytes) {
    const auto* space = static_cast<const uint8_t*>(std::memchr(begin, ' ', bytes));
    const uint64_t first = space ? space - begin : 0, second = bytes - first - 1;
    if (!space || std::memchr(space + 1, ' ', second)) return nb::none();
    return nb::make_tuple(text(begin, first), text(space + 1, second));
}

}  // namespace

void bind_strings(nb::module_& m) {
    m.def("scan_strings", &scan_strings, "data"_a.noconvert(), "ends"_a.noconvert(), "done"_a);
    m.def(
        "strings", [](const Bytes& data, const Ends& ends) { return list_of(data, ends, text); }, "data"_a.noconvert(),
        "ends"_a.noconvert());
    m.def(
        "string_pairs", [](const Bytes& data, const Ends& ends) { return list_of(data, ends, pair); },
        "data"_a.noconvert(), "ends"_a.noconvert());
    m.def("check_vocabulary", &check, "tokens"_a.noconvert(), "token_ends"_a.noconvert(), "kinds"_a.noconvert(),
          "merges"_a.noconvert(), "merge_ends"_a.noconvert());
    nb::class_<Substrings>(m, "Substrings")
        .def(nb::init<std::vector<std::string>, size_t>(), "words"_a, "most"_a)
        .def(
            "find",
            [](const Substrings& substrings, const Bytes& data, const Ends& ends, bool joined) {
                const StringList strings = checked(data, ends);
                const nb::gil_scoped_release no_gil;
                return substrings.find(strings, joined);
            },
            "data"_a.noconvert(), "ends"_a.noconvert(), "joined"_a);
}

}  // namespace qwick
