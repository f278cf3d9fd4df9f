#include "file_reader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "blocks.h"
#include "codec/codec.h"

namespace qwick {
namespace {

constexpr int64_t kSmallBytes = int64_t{1} << 30;  // a thread reads this in the time that a tokenizer takes to make
constexpr int64_t kPieceBytes = 256 << 10;         // read, and regrouped out of L2

// 0, an errno, or -1 when the file ends before.
int read_all(int fd, uint8_t* target, int64_t bytes, int64_t offset) {
    while (bytes > 0) {
        const ssize_t count = pread(fd, target, bytes, offset);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return count < 0 ? errno : -1;
        target += count, offset += count, bytes -= count;
    }
    return 0;
}

}  // namespace

void FileReader::add(std::shared_ptr<Tensor> tensor, int fd, int64_t offset, BlockType source) {
    tensor->begin_fill(source);
    const int64_t rows = tensor->shape()[0], row_bytes = file_row_bytes(source, tensor->shape()[1]);
    const int64_t piece_rows = std::max<int64_t>(1, kPieceBytes / row_bytes / kTileRows) * kTileRows;
    matrices_.push_back({std::move(tensor), fd, offset, source, row_bytes, piece_rows, num_pieces_});
    num_pieces_ += (rows - 1) / piece_rows + 1;
    total_bytes_ += rows * row_bytes;
    buffer_bytes_ = std::max(buffer_bytes_, std::min(piece_rows, rows) * row_bytes);
}

FileReader::Failure FileReader::run(ThreadPool& pool, int threads) {
    if (matrices_.empty()) return {};
    const bool spare = threads > 1 && total_bytes_ < kSmallBytes * (threads - 1);
    const PoolRun pool_run(pool, spare ? threads - 1 : threads);
    std::vector<uint8_t> buffers(buffer_bytes_ * pool.threads());
    pool.for_each(num_pieces_, [&](int64_t piece, int thread) {
        if (stopped_ || failed_index_ >= 0) return;
        const auto after = std::upper_bound(matrices_.begin(), matrices_.end(), piece,
                                            [](int64_t value, const Matrix& m) { return value < m.first_piece; });
        const int64_t index = after - matrices_.begin() - 1;
        read_piece(index, piece - matrices_[index].first_piece, buffers.data() + thread * buffer_bytes_);
    });
    if (failed_index_ >= 0 || stopped_) return {failed_index_, std::max(error_.load(), 0)};
    for (const Matrix& matrix : matrices_) matrix.tensor->end_fill();
    return {};
}

void FileReader::read_piece(int64_t index, int64_t piece, uint8_t* buffer) {
    const Matrix& m = matrices_[index];
    const int64_t first = piece * m.piece_rows, count = std::min(m.piece_rows, m.tensor->shape()[0] - first);
    const int error = read_all(m.fd, buffer, count * m.row_bytes, m.offset + first * m.row_bytes);
    if (error != 0) {
        error_ = error;
        failed_index_ = index;
        return;
    }
    for (int64_t row = 0; row < count; row += kTileRows) {
        m.tensor->store_rows(first + row, std::min(count - row, kTileRows), buffer + row * m.row_bytes, m.source);
    }
    bytes_read_ += count * m.row_bytes;
}

}  // namespace qwick
