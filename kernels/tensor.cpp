#include "tensor.h"

#include <algorithm>
#include <cstring>

#include "blocks.h"
#include "codec/codec.h"
#include "encode/encode.h"
#include "errors.h"

namespace qwick {
namespace {

constexpr int64_t kMaxRowLen = 1 << 20;

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text = "[";
    for (int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + "]";
}

}  // namespace

Tensor::Tensor(std::string name, int64_t rows, int64_t cols, Family family, std::shared_ptr<Arena> arena)
    : name_(std::move(name)), shape_{rows, cols}, arena_(std::move(arena)) {
    const int64_t together = is_blocks(family) ? traits_of(family).len : kQuantBlock;
    if (rows < 1 || cols < 1 || cols > kMaxRowLen || cols % together != 0) {
        throw KernelError(name_ + " has shape " + shape_text(shape_) + "; the kernels need rows of a multiple of " +
                          std::to_string(together) + " values");
    }
    const int64_t rows_together = is_blocks(family) ? kTileRows : 1;
    num_bytes_ = checked_product((rows - 1) / rows_together + 1, memory_bytes(family, rows_together, cols));
    bytes_ = arena_->allocate(num_bytes_);
    weight_ = {family, rows, cols, bytes_};
}

Tensor::Tensor(std::string name, std::vector<int64_t> shape, const float* values, std::shared_ptr<Arena> arena)
    : name_(std::move(name)), shape_(std::move(shape)), arena_(std::move(arena)) {
    size_t count = 1;
    for (int64_t size : shape_) count = checked_product(count, static_cast<size_t>(size));
    num_bytes_ = checked_product(count, 4);
    bytes_ = arena_->allocate(num_bytes_);
    if (count > 0) std::memcpy(bytes_, values, num_bytes_);
    weight_ = {Family::f32, 1, static_cast<int64_t>(count), bytes_};
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

void Tensor::check_window(int64_t first, int64_t count, BlockType source) const {
    if (first != next_row_ || count < 0 || count > weight_.rows - first) {
        throw KernelError(name_ + " of shape " + shape_text(shape_) + " expects row " + std::to_string(next_row_) +
                          " next, got " + std::to_string(count) + " rows from " + std::to_string(first));
    }
    if (block_shape(source).len == 0 || weight_.cols % block_shape(source).len != 0) {
        throw KernelError(name_ + " of shape " + shape_text(shape_) + " cannot be read from GGUF type " +
                          std::to_string(static_cast<int>(source)));
    }
    const BlockType own = block_type_of(weight_.family);
    if (family_of(source) != weight_.family && !can_encode(own)) {
        throw KernelError(name_ + ": nothing is encoded to the kernel family " +
                          kFamilyNames[static_cast<int>(weight_.family)] + ", only its own files are taken");
    }
}

// Rows of a foreign format pass through floats, and those of a tile of blocks through their encoding.
int64_t Tensor::staging_bytes(BlockType source) const {
    const BlockType own = block_type_of(weight_.family);
    const int64_t values = weight_.cols * static_cast<int64_t>(sizeof(float));
    if (!is_blocks(weight_.family)) return own == source ? 0 : values;
    return family_of(source) == weight_.family ? 0 : values + kTileRows * file_row_bytes(own, weight_.cols);
}

// A family of single values: row by row.
void Tensor::store_values(int64_t first, int64_t count, const uint8_t* rows, BlockType source, uint8_t* staging) {
    const BlockType own = block_type_of(weight_.family);
    const int64_t cols = weight_.cols, row_bytes = file_row_bytes(own, cols), given = file_row_bytes(source, cols);
    auto* out = reinterpret_cast<uint8_t*>(bytes_) + first * row_bytes;
    if (own == source) {
        std::memcpy(out, rows, count * row_bytes);
        return;
    }
    auto* values = reinterpret_cast<float*>(staging);
    for (int64_t i = 0; i < count; ++i) {
        decode_file_row(source, rows + i * given, cols, values);
        encode_row(own, values, cols, out + i * row_bytes);
    }
}

// A family of blocks, rows of one tile.
void Tensor::store_blocks(int64_t first, int64_t count, const uint8_t* rows, BlockType source, uint8_t* staging) {
    const bool kept = family_of(source) == weight_.family;
    const BlockType own = kept ? source : block_type_of(weight_.family);
    const int64_t cols = weight_.cols, row_bytes = file_row_bytes(own, cols), given = file_row_bytes(source, cols);
    auto* values = reinterpret_cast<float*>(staging);
    uint8_t* encoded = kept ? nullptr : staging + cols * sizeof(float);
    for (int64_t i = 0; !kept && i < count; ++i) {
        decode_file_row(source, rows + i * given, cols, values);
        encode_row(own, values, cols, encoded + i * row_bytes);
    }
    regroup(own, kept ? rows : encoded, weight_, first % kTileRows, count,
            reinterpret_cast<uint8_t*>(bytes_) + first / kTileRows * memory_bytes(weight_.family, kTileRows, cols));
}

void Tensor::store_rows(int64_t first, int64_t count, const uint8_t* rows, BlockType source, uint8_t* staging) {
    if (is_blocks(weight_.family)) {
        store_blocks(first, count, rows, source, staging);
    } else {
        store_values(first, count, rows, source, staging);
    }
}

void Tensor::write(int64_t first, int64_t count, const uint8_t* rows, BlockType source, ThreadPool& pool, int threads) {
    check_window(first, count, source);
    if (count == 0) return;
    const PoolRun run(pool, threads);
    const int64_t given = file_row_bytes(source, weight_.cols), first_tile = first / kTileRows, end = first + count;
    const int64_t staged = staging_bytes(source);
    std::vector<uint8_t> staging(staged * pool.threads());
    pool.for_each((end - 1) / kTileRows + 1 - first_tile, [&](int64_t item, int thread) {
        const int64_t begin = std::max(first, (first_tile + item) * kTileRows);
        const int64_t stop = std::min(end, (first_tile + item + 1) * kTileRows);
        store_rows(begin, stop - begin, rows + (begin - first) * given, source, staging.data() + thread * staged);
    });
    next_row_ += count;
}

void Tensor::decode_rows(int64_t first, int64_t count, float* out) const {
    if (first < 0 || count < 0 || first > next_row_ - count) {
        throw KernelError(name_ + " has no rows " + std::to_string(first) + " to " + std::to_string(first + count));
    }
    for (int64_t i = 0; i < count; ++i) decode_memory_row(weight_, first + i, out + i * weight_.cols);
}

}  // namespace qwick
