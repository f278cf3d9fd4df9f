#include "tensor.h"

#include <cstring>

#include "codec/codec.h"
#include "errors.h"

namespace qwick {
namespace {

constexpr int64_t kMaxRowLen = 1 << 20;

size_t value_bytes(Family family) {
    return family == Family::f32 ? 4 : family == Family::bf16 ? 2 : 1;
}

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text = "[";
    for (int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + "]";
}

}  // namespace

Tensor::Tensor(std::string name, int64_t rows, int64_t cols, Family family, std::shared_ptr<Arena> arena)
    : name_(std::move(name)), shape_{rows, cols}, arena_(std::move(arena)) {
    if (rows < 1 || cols < 1 || cols > kMaxRowLen || cols % kQuantBlock != 0) {
        throw KernelError(name_ + " has shape " + shape_text(shape_) + "; the kernels need rows of a multiple of " +
                          std::to_string(kQuantBlock) + " values");
    }
    const size_t values = checked_product(checked_product(rows, cols), value_bytes(family));
    num_bytes_ = family == Family::i8 ? values + values / kQuantBlock * 2 : values;
    bytes_ = arena_->allocate(num_bytes_);
    weight_ = {family, rows, cols, bytes_, nullptr};
    if (family == Family::i8) weight_.scales = reinterpret_cast<const uint16_t*>(bytes_ + values);
}

Tensor::Tensor(std::string name, std::vector<int64_t> shape, const float* values, std::shared_ptr<Arena> arena)
    : name_(std::move(name)), shape_(std::move(shape)), arena_(std::move(arena)) {
    size_t count = 1;
    for (int64_t size : shape_) count = checked_product(count, static_cast<size_t>(size));
    num_bytes_ = checked_product(count, 4);
    bytes_ = arena_->allocate(num_bytes_);
    if (count > 0) std::memcpy(bytes_, values, num_bytes_);
    weight_ = {Family::f32, 1, static_cast<int64_t>(count), bytes_, nullptr};
    next_row_ = 1;
}

const Weight& Tensor::matrix() const {
    if (shape_.size() != 2) throw KernelError(name_ + " has shape " + shape_text(shape_) + ", a matrix is needed");
    if (!complete()) throw KernelError(name_ + " was given only " + std::to_string(next_row_) + " of its rows");
    return weight_;
}

const float* Tensor::vector(int64_t size) const {
    if (weight_.family != Family::f32 || weight_.rows * weight_.cols != size || !complete()) {
        throw KernelError(name_ + " has shape " + shape_text(shape_) + ", " + std::to_string(size) +
                          " f32 values are needed");
    }
    return static_cast<const float*>(weight_.data);
}

void Tensor::check_window(int64_t first, int64_t count) const {
    if (first != next_row_ || count < 0 || count > weight_.rows - first) {
        throw KernelError(name_ + " of shape " + shape_text(shape_) + " expects row " + std::to_string(next_row_) +
                          " next, got " + std::to_string(count) + " rows from " + std::to_string(first));
    }
}

void Tensor::store_row(int64_t row, const float* values) {
    const int64_t cols = weight_.cols, begin = row * cols;
    switch (weight_.family) {
        case Family::f32:
            std::memcpy(bytes_ + begin * 4, values, cols * 4);
            break;
        case Family::bf16:
            encode_bf16(values, cols, reinterpret_cast<uint16_t*>(bytes_) + begin);
            break;
        case Family::i8:
            encode_q8_0(values, cols, reinterpret_cast<int8_t*>(bytes_) + begin,
                        const_cast<uint16_t*>(weight_.scales) + begin / kQuantBlock);
            break;
    }
}

void Tensor::write(int64_t first, int64_t count, const float* rows, ThreadPool& pool, int threads) {
    check_window(first, count);
    const PoolRun run(pool, threads);
    pool.for_each(count, [&](int64_t i, int) { store_row(first + i, rows + i * weight_.cols); });
    next_row_ += count;
}

void Tensor::write(int64_t first, int64_t count, const uint16_t* rows, ThreadPool& pool, int threads) {
    check_window(first, count);
    const int64_t cols = weight_.cols;
    if (weight_.family == Family::bf16) {
        std::memcpy(bytes_ + first * cols * 2, rows, count * cols * 2);
    } else {
        std::vector<float> decoded(cols * threads);
        const PoolRun run(pool, threads);
        pool.for_each(count, [&](int64_t i, int thread) {
            float* row = decoded.data() + thread * cols;
            decode_bf16(rows + i * cols, cols, row);
            store_row(first + i, row);
        });
    }
    next_row_ += count;
}

}  // namespace qwick
