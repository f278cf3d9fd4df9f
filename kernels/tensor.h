// A weight in the arena, filled window by window while a model loads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "arena.h"
#include "codec/block_type.h"
#include "kernels.h"
#include "thread_pool.h"

namespace qwick {

class Tensor {
  public:
    // A matrix [rows, cols] to be written in `family`; cols is a multiple of 32 and of the family's block. Throws
    // CapacityError, KernelError.
    Tensor(std::string name, int64_t rows, int64_t cols, Family family, std::shared_ptr<Arena> arena);
    // A small f32 tensor of any shape, copied.
    Tensor(std::string name, std::vector<int64_t> shape, const float* values, std::shared_ptr<Arena> arena);

    // Rows [first, first + count) as a file of `source` holds them, end to end. Of the tensor's own family they are
    // kept without loss, others are decoded and encoded anew. Windows come in ascending order and leave no gap.
    void write(int64_t first, int64_t count, const uint8_t* rows, BlockType source, ThreadPool& pool, int threads);
    // The same in two steps, for who fills all rows from several threads: between the two, each tile of 16 rows is
    // stored once, by one thread. Nothing reads the tensor before end_fill(). `staging`: staging_bytes(source) of
    // memory for the caller's thread, aligned for floats.
    void begin_fill(BlockType source) const { check_window(0, weight_.rows, source); }
    int64_t staging_bytes(BlockType source) const;
    // Within one tile. Throws nothing.
    void store_rows(int64_t first, int64_t count, const uint8_t* rows, BlockType source, uint8_t* staging);
    void end_fill() { next_row_ = weight_.rows; }
    // Rows as they are in memory: out [count, cols].
    void decode_rows(int64_t first, int64_t count, float* out) const;
    bool complete() const { return next_row_ == weight_.rows; }

    const std::string& name() const { return name_; }
    const std::vector<int64_t>& shape() const { return shape_; }
    size_t num_bytes() const { return num_bytes_; }
    std::byte* bytes() const { return bytes_; }
    const Weight& matrix() const;             // throws KernelError unless complete and two-dimensional
    const float* vector(int64_t size) const;  // throws KernelError unless f32 of that many values

  private:
    void check_window(int64_t first, int64_t count, BlockType source) const;
    void store_values(int64_t first, int64_t count, const uint8_t* rows, BlockType source, uint8_t* staging);
    void store_blocks(int64_t first, int64_t count, const uint8_t* rows, BlockType source, uint8_t* staging);

    std::string name_;
    std::vector<int64_t> shape_;
    std::shared_ptr<Arena> arena_;
    Weight weight_{};
    std::byte* bytes_ = nullptr;
    size_t num_bytes_ = 0;
    int64_t next_row_ = 0;
};

}  // namespace qwick
