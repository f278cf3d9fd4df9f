// Arrays in and out of the leaves' bindings.
#pragma once

#include <nanobind/ndarray.h>

#include <string>
#include <vector>

#include "dispatch.h"
#include "errors.h"

namespace qwick {

namespace nb = nanobind;

template <class T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<nb::numpy, float>;

inline Kernels kernels_of(const std::string& isa) {
    return make_dispatch(choose_isa(isa)).kernels;
}

inline KvFormat kv_format_named(const std::string& name) {
    for (int i = 0; i < kNumKvFormats; ++i) {
        if (name == kKvFormatNames[i]) return static_cast<KvFormat>(i);
    }
    throw KernelError("unknown KV format '" + name + "'; known: f32, f16, bf16, q8_0");
}

inline void require(bool holds, const char* what) {
    if (!holds) throw KernelError(std::string("leaf called outside its contract: ") + what);
}

// A new numpy array of exactly this size, so that the address sanitizer sees a write past its end.
template <class T>
struct Made {
    T* data;
    nb::ndarray<nb::numpy, T> array;

    explicit Made(const std::vector<size_t>& shape) {
        size_t size = 1;
        for (const size_t extent : shape) size *= extent;
        data = new T[size]();
        array = nb::ndarray<nb::numpy, T>(data, shape.size(), shape.data(),
                                          nb::capsule(data, [](void* p) noexcept { delete[] static_cast<T*>(p); }));
    }
};

}  // namespace qwick
