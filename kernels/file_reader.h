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

class FileReader {
  public:
    struct Failure {
        int64_t index = -1;  // of the matrix, in the order of add(); -1: none
        int error = 0;       // errno; 0: the file ended
    };

    // All rows of `tensor` lie in the file end to end from byte `offset`, as blocks of `source`. The file stays open
    // until run() is over. Throws KernelError.
    void add(std::shared_ptr<Tensor> tensor, int fd, int64_t offset, BlockType source);

    // Reads what was added; once. Of a small file one thread less reads, and a core is left to the tokenizer: 0.08 s
    // sooner on two cores. Ends early when a read fails or stop() is called: what is missing is incomplete then.
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
    };

    void read_piece(int64_t index, int64_t piece, uint8_t* buffer);

    std::vector<Matrix> matrices_;
    int64_t num_pieces_ = 0;
    int64_t total_bytes_ = 0;
    int64_t buffer_bytes_ = 0;
    std::atomic<int64_t> bytes_read_{0};
    std::atomic<bool> stopped_{false};
    std::atomic<int64_t> failed_index_{-1};
    std::atomic<int> error_{0};
};

}  // namespace qwick
