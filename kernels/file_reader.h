// Whole matrices out of open files into tensors, in one call: every thread reads some rows and regroups them while they
// are in its cache. Python's lock is not needed for any of it, so that the tokenizer, which holds it for half a second,
// can be made meanwhile.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "tensor.h"

namespace qwick {

constexpr int64_t kPackedPiece = 256 << 10;  // read, and summed out of L2

// Of memory: finds any accident, stops no enemy. Some 10 GB/s.
uint64_t checksum(const uint8_t* data, int64_t bytes);

class FileReader {
  public:
    static constexpr int kDamaged = -2;

    struct Failure {
        int64_t index = -1;  // of the matrix, in the order of add(); -1: none
        int error = 0;       // errno; 0: the file ended; kDamaged: a checksum is not as promised
    };

    // All rows of `tensor` lie in the file end to end from byte `offset`, as blocks of `source`. The file stays open
    // until run() is over. Throws KernelError.
    void add(std::shared_ptr<Tensor> tensor, int fd, int64_t offset, BlockType source);

    // The bytes of `tensor` lie in the file as memory has them, `sums` being checksum() of each kPackedPiece of them.
    // Throws KernelError.
    void add_packed(std::shared_ptr<Tensor> tensor, int fd, int64_t offset, std::vector<uint64_t> sums);

    // Reads what was added; once. Ends early when a read fails or stop() is called: what is missing is incomplete then.
    Failure run(ThreadPool& pool, int threads);

    void stop() { stopped_ = true; }  // from any thread
    int64_t bytes_read() const { return bytes_read_; }

  private:
    struct Matrix {
        std::shared_ptr<Tensor> tensor;
        int fd;
        int64_t offset;
        BlockType source;
        int64_t row_bytes, piece_rows, first_piece;
        std::vector<uint64_t> sums;  // of packed pieces; empty for rows
    };

    int read_piece(const Matrix& matrix, int64_t piece, uint8_t* buffer);
    int read_packed(const Matrix& matrix, int64_t piece);

    std::vector<Matrix> matrices_;
    int64_t num_pieces_ = 0;
    int64_t buffer_bytes_ = 0;
    std::atomic<int64_t> bytes_read_{0};
    std::atomic<bool> stopped_{false};
    std::atomic<int64_t> failed_index_{-1};
    std::atomic<int> error_{0};
};

}  // namespace qwick
