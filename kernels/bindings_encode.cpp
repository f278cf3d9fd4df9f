#include "bindings_encode.h"

#include <nanobind/ndarray.h>

#include <mutex>
#include <string>

#include "encode/encode.h"
#include "errors.h"
#include "thread_pool.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace qwick {
namespace {

using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Blocks = nb::ndarray<nb::numpy, uint8_t>;

// Threads of its own, kept from window to window: starting and joining them takes longer than a window where the
// machine is busy. Calls from several threads take turns.
struct Encoder {
    explicit Encoder(int wanted) : threads(wanted) {}
    const int threads;
    ThreadPool pool;
    std::mutex running;
};

Blocks encode(Encoder& encoder, const Rows& rows, int ggml_type) {
    const auto type = static_cast<BlockType>(ggml_type);
    const BlockShape shape = block_shape(type);
    const auto n = static_cast<int64_t>(rows.shape(0)), k = static_cast<int64_t>(rows.shape(1));
    if (!can_encode(type)) throw KernelError("cannot encode to GGUF type " + std::to_string(ggml_type));
    if (k % shape.len != 0) {
        throw KernelError("rows of " + std::to_string(k) + " values do not divide into blocks of " +
                          std::to_string(shape.len));
    }
    const int64_t row_bytes = k / shape.len * shape.bytes;
    auto* data = new uint8_t[n * row_bytes];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
    const float* values = rows.data();
    {
        const nb::gil_scoped_release no_gil;
        const std::lock_guard<std::mutex> lock(encoder.running);
        const PoolRun run(encoder.pool, encoder.threads);
        encoder.pool.for_each(n, [&](int64_t i, int) { encode_row(type, values + i * k, k, data + i * row_bytes); });
    }
    return Blocks(data, {static_cast<size_t>(n), static_cast<size_t>(row_bytes)}, owner);
}

}  // namespace

void bind_encode(nb::module_& module) {
    nb::class_<Encoder>(module, "Encoder")
        .def(nb::init<int>(), "threads"_a)
        .def("encode", encode, "rows"_a.noconvert(), "ggml_type"_a);
}

}  // namespace qwick
