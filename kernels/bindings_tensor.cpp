#include "bindings_tensor.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <string>

#include "blocks.h"
#include "codec/codec.h"
#include "errors.h"
#include "file_reader.h"
#include "runtime.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace qwick {
namespace {

using AnyRows = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<nb::numpy, float>;

// What an array holds: f32, f16, uint16 (bf16 bits), or uint8 with the number of a GGUF type.
BlockType type_of(const Tensor& tensor, const AnyRows& rows, int ggml_type) {
    const nb::dlpack::dtype dtype = rows.dtype();
    if (dtype == nb::dtype<float>()) return BlockType::f32;
    if (dtype == nb::dtype<uint16_t>()) return BlockType::bf16;
    const nb::dlpack::dtype half{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
    if (dtype == half) return BlockType::f16;
    const auto type = static_cast<BlockType>(ggml_type);
    if (dtype == nb::dtype<uint8_t>() && block_shape(type).len > 0) return type;
    throw KernelError(tensor.name() + " was given rows that are none of f32, f16, uint16 (bf16), or uint8 of a format");
}

void require_row(const std::string& name, BlockType type, int64_t k, const AnyRows& rows) {
    const auto bytes = static_cast<int64_t>(rows.shape(1) * rows.itemsize());
    if (k % block_shape(type).len == 0 && bytes == file_row_bytes(type, k)) return;
    throw KernelError(name + " was given rows of " + std::to_string(rows.shape(1)) +
                      (rows.itemsize() > 1 ? " values" : " bytes") + ", which are not " + std::to_string(k) +
                      " values of GGUF type " + std::to_string(static_cast<int>(type)));
}

void write_rows(Tensor& tensor, int64_t first, const AnyRows& rows, Runtime& runtime, int source) {
    const BlockType type = type_of(tensor, rows, source);
    require_row(tensor.name(), type, tensor.shape().back(), rows);
    const auto count = static_cast<int64_t>(rows.shape(0));
    const auto* data = static_cast<const uint8_t*>(rows.data());
    const nb::gil_scoped_release no_gil;
    const std::lock_guard<std::mutex> lock(runtime.running);
    tensor.write(first, count, data, type, runtime.pool, runtime.threads_batch);
}

struct Filled {
    explicit Filled(int64_t rows, int64_t cols)
        : data(new float[rows * cols]),
          array(data, {static_cast<size_t>(rows), static_cast<size_t>(cols)},
                nb::capsule(data, [](void* p) noexcept { delete[] static_cast<float*>(p); })) {}
    float* data;
    Values array;
};

Values decode_rows(const Tensor& tensor, int64_t first, int64_t count) {
    if (first < 0 || count < 0 || first > tensor.matrix().rows - count) {
        throw KernelError(tensor.name() + " does not have these rows");
    }
    Filled made(count, tensor.matrix().cols);
    const nb::gil_scoped_release no_gil;
    tensor.decode_rows(first, count, made.data);
    return made.array;
}

// A pool of its own, as in encode.
Values decode(const Bytes& rows, int ggml_type, int threads) {
    const auto type = static_cast<BlockType>(ggml_type);
    const BlockShape shape = block_shape(type);
    const auto n = static_cast<int64_t>(rows.shape(0)), row_bytes = static_cast<int64_t>(rows.shape(1));
    if (shape.len == 0) throw KernelError("GGUF type " + std::to_string(ggml_type) + " is not known");
    if (row_bytes % shape.bytes != 0) {
        throw KernelError("rows of " + std::to_string(row_bytes) + " bytes do not divide into blocks of " +
                          std::to_string(shape.bytes));
    }
    const int64_t k = row_bytes / shape.bytes * shape.len;
    Filled made(n, k);
    const uint8_t* data = rows.data();
    const nb::gil_scoped_release no_gil;
    ThreadPool pool;
    const PoolRun run(pool, threads);
    pool.for_each(n, [&](int64_t i, int) { decode_file_row(type, data + i * row_bytes, k, made.data + i * k); });
    return made.array;
}

}  // namespace

void bind_tensor(nb::module_& m) {
    nb::class_<Tensor>(m, "Tensor")
        .def_prop_ro("name", &Tensor::name)
        .def_prop_ro("shape", [](const Tensor& t) { return nb::tuple(nb::cast(t.shape())); })
        .def_prop_ro("num_bytes", &Tensor::num_bytes)
        .def_prop_ro("complete", &Tensor::complete)
        .def("write", &write_rows, "first"_a, "rows"_a.noconvert(), "runtime"_a, "source"_a = -1)
        .def("decode_rows", &decode_rows, "first"_a, "count"_a)
        .def("view", [](nb::object self) {
            const auto& tensor = nb::cast<const Tensor&>(self);
            return nb::cast(nb::ndarray<nb::numpy, uint8_t>(reinterpret_cast<uint8_t*>(tensor.bytes()),
                                                            {tensor.num_bytes()}, self));
        });
    nb::class_<FileReader>(m, "FileReader")
        .def(nb::init<>())
        .def(
            "add",
            [](FileReader& reader, std::shared_ptr<Tensor> tensor, int fd, int64_t offset, int ggml_type) {
                reader.add(std::move(tensor), fd, offset, static_cast<BlockType>(ggml_type));
            },
            "tensor"_a, "fd"_a, "offset"_a, "ggml_type"_a)
        .def("add_packed", &FileReader::add_packed, "tensor"_a, "fd"_a, "offset"_a, "sums"_a)
        .def(
            "run",
            [](FileReader& reader, Runtime& runtime) {
                const std::lock_guard<std::mutex> lock(runtime.running);
                const FileReader::Failure failure = reader.run(runtime.pool, runtime.threads_batch);
                return std::pair(failure.index, failure.error);
            },
            "runtime"_a, nb::call_guard<nb::gil_scoped_release>())
        .def("stop", &FileReader::stop)
        .def_prop_ro("bytes_read", &FileReader::bytes_read);
    m.def(
        "packed_sums",
        [](const Tensor& tensor) {
            const auto* data = reinterpret_cast<const uint8_t*>(tensor.bytes());
            const auto bytes = static_cast<int64_t>(tensor.num_bytes());
            std::vector<uint64_t> sums;
            for (int64_t at = 0; at < bytes; at += kPackedPiece) {
                sums.push_back(checksum(data + at, std::min(kPackedPiece, bytes - at)));
            }
            return sums;
        },
        "tensor"_a, nb::call_guard<nb::gil_scoped_release>());
    m.attr("layout_version") = kLayoutVersion;
    m.attr("packed_piece_bytes") = kPackedPiece;
    m.def("decode", &decode, "rows"_a.noconvert(), "ggml_type"_a, "threads"_a);
}

}  // namespace qwick
