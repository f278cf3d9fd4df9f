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

// A family of single values: row by row.
void Tensor::write_values(int64_t first, int64_t count, const uint8_t* rows, BlockType source, ThreadPool& pool) {
    const BlockType own = block_type_of(weight_.family);
    const int64_t cols = weight_.cols, row_bytes = file_row_bytes(own, cols), given = file_row_bytes(source, cols);
    auto* out = reinterpret_cast<uint8_t*>(bytes_) + first * row_bytes;
    std::vector<float> decoded(own == source ? 0 : cols * pool.threads());
    pool.for_each(count, [&](int64_t i, int thread) {
        if (own == source) {
            std::memcpy(out + i * row_bytes, rows + i * given, row_bytes);
            return;
        }
        float* values = decoded.data() + thread * cols;
        decode_file_row(source, rows + i * given, cols, values);
        encode_row(own, values, cols, out + i * row_bytes);
    });
}

// A family of blocks: tile by tile.
void Tensor::write_tiles(int64_t first, int64_t count, const uint8_t* rows, BlockType source, ThreadPool& pool) {
    const bool kept = family_of(source) == weight_.family;
    const BlockType own = kept ? source : block_type_of(weight_.family);
    const int64_t cols = weight_.cols, row_bytes = file_row_bytes(own, cols), given = file_row_bytes(source, cols);
    const int64_t end = first + count, first_tile = first / kTileRows;
    std::vector<float> decoded(kept ? 0 : cols * pool.threads());
    std::vector<uint8_t> encoded(kept ? 0 : kTileRows * row_bytes * pool.threads());
    pool.for_each((end - 1) / kTileRows + 1 - first_tile, [&](int64_t item, int thread) {
        const int64_t tile = first_tile + item;
        const int64_t begin = std::max(first, tile * kTileRows), stop = std::min(end, (tile + 1) * kTileRows);
        const uint8_t* blocks = rows + (begin - first) * given;
        if (!kept) {
            float* values = decoded.data() + thread * cols;
            uint8_t* made = encoded.data() + thread * kTileRows * row_bytes;
            for (int64_t i = 0; i < stop - begin; ++i) {
                decode_file_row(source, blocks + i * given, cols, values);
                encode_row(own, values, cols, made + i * row_bytes);
            }
            blocks = made;
        }
        regroup(own, blocks, weight_, begin % kTileRows, stop - begin,
                reinterpret_cast<uint8_t*>(bytes_) + tile * memory_bytes(weight_.family, kTileRows, cols));
    });
}

void Tensor::write(int64_t first, int64_t count, const uint8_t* rows, BlockType source, ThreadPool& pool, int threads) {
    check_window(first, count, source);
    if (count == 0) return;
    const PoolRun run(pool, threads);
    if (is_blocks(weight_.family)) {
        write_tiles(first, count, rows, source, pool);
    } else {
        write_values(first, count, rows, source, pool);
    }
    next_row_ += count;
}

void Tensor::decode_rows(int64_t first, int64_t count, float* out) const {
    if (first < 0 || count < 0 || first > next_row_ - count) {
        throw KernelError(name_ + " has no rows " + std::to_string(first) + " to " + std::to_string(first + count));
    }
    for (int64_t i = 0; i < count; ++i) decode_memory_row(weight_, first + i, out + i * weight_.cols);
}

}  // namespace qwick
