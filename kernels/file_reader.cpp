#include "file_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "blocks.h"
#include "codec/codec.h"
#include "errors.h"
#include "hash.h"

namespace qwick {
namespace {

constexpr int64_t kPieceBytes = 256 << 10;  // read, and regrouped out of L2

constexpr int64_t kLine = 64;

constexpr int kEnded = -1;

// What the disk is asked for ahead: threads that take turns look like no stream to the kernel, which then reads little
// ahead of them. 5.8 GB from a disk of 1.4 GB/s: 5.2 s instead of 13.8.
constexpr int64_t kAheadBytes = 16 << 20;

// 0, an errno, or kEnded.
int read_all(int fd, uint8_t* target, int64_t bytes, int64_t offset) {
    posix_fadvise(fd, offset + kAheadBytes, bytes, POSIX_FADV_WILLNEED);
    while (bytes > 0) {
        const ssize_t count = pread(fd, target, bytes, offset);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return count < 0 ? errno : kEnded;
        target += count, offset += count, bytes -= count;
    }
    return 0;
}

}  // namespace

// As wyhash, in four lanes: a multiplication for every 16 bytes.
uint64_t checksum(const uint8_t* data, int64_t bytes) {
    constexpr uint64_t kSecret[4] = {0xa0761d6478bd642f, 0xe7037ed1a0b428db, 0x8ebc6af09c88c6e3, 0x589965cc75374cc3};
    uint64_t lanes[4] = {static_cast<uint64_t>(bytes), 1, 2, 3};
    for (; bytes >= 64; bytes -= 64, data += 64) {
        uint64_t words[8];
        std::memcpy(words, data, 64);
        for (int i = 0; i < 4; ++i) lanes[i] = mixed(words[2 * i] ^ kSecret[i], words[2 * i + 1] ^ lanes[i]);
    }
    uint64_t rest[8] = {};
    if (bytes > 0) std::memcpy(rest, data, bytes);
    uint64_t sum = 0;
    for (int i = 0; i < 4; ++i) {
        sum = mixed(sum ^ mixed(rest[2 * i] ^ kSecret[i], rest[2 * i + 1] ^ lanes[i]), kSecret[3 - i]);
    }
    return sum;
}

void FileReader::add(std::shared_ptr<Tensor> tensor, int fd, int64_t offset, BlockType source) {
    tensor->begin_fill(source);
    const int64_t rows = tensor->shape()[0], row_bytes = file_row_bytes(source, tensor->shape()[1]);
    const int64_t piece_rows = std::max<int64_t>(1, kPieceBytes / row_bytes / kTileRows) * kTileRows;
    const int64_t needed = tensor->staging_bytes(source) + std::min(piece_rows, rows) * row_bytes;
    buffer_bytes_ = std::max(buffer_bytes_, (needed + kLine - 1) / kLine * kLine);
    matrices_.push_back({std::move(tensor), fd, offset, source, row_bytes, piece_rows, num_pieces_, {}});
    num_pieces_ += (rows - 1) / piece_rows + 1;
}

void FileReader::add_packed(std::shared_ptr<Tensor> tensor, int fd, int64_t offset, std::vector<uint64_t> sums) {
    const auto bytes = static_cast<int64_t>(tensor->num_bytes());
    const auto pieces = static_cast<int64_t>(sums.size());
    if (tensor->complete() || pieces != (bytes - 1) / kPackedPiece + 1 || offset < 0) {
        throw KernelError(tensor->name() + " of " + std::to_string(bytes) + " bytes is not " + std::to_string(pieces) +
                          " packed pieces");
    }
    matrices_.push_back({std::move(tensor), fd, offset, BlockType::f32, 0, 0, num_pieces_, std::move(sums)});
    num_pieces_ += pieces;
}

FileReader::Failure FileReader::run(ThreadPool& pool, int threads) {
    if (matrices_.empty()) return {};
    const PoolRun pool_run(pool, threads);
    std::vector<uint8_t> buffers(buffer_bytes_ * pool.threads());
    pool.for_each(num_pieces_, [&](int64_t piece, int thread) {
        if (stopped_ || failed_index_ >= 0) return;
        const auto after = std::upper_bound(matrices_.begin(), matrices_.end(), piece,
                                            [](int64_t value, const Matrix& m) { return value < m.first_piece; });
        const int64_t index = after - matrices_.begin() - 1;
        const Matrix& matrix = matrices_[index];
        const int error = matrix.sums.empty()
                              ? read_piece(matrix, piece - matrix.first_piece, buffers.data() + thread * buffer_bytes_)
                              : read_packed(matrix, piece - matrix.first_piece);
        if (error == 0) return;
        int64_t none = -1;  // the first failure is the one told of
        if (failed_index_.compare_exchange_strong(none, index)) error_ = error == kEnded ? 0 : error;
    });
    if (failed_index_ >= 0 || stopped_) return {failed_index_, error_};
    for (const Matrix& matrix : matrices_) matrix.tensor->end_fill();
    return {};
}

int FileReader::read_packed(const Matrix& m, int64_t piece) {
    const int64_t at = piece * kPackedPiece;
    const int64_t bytes = std::min(kPackedPiece, static_cast<int64_t>(m.tensor->num_bytes()) - at);
    auto* target = reinterpret_cast<uint8_t*>(m.tensor->bytes()) + at;
    if (const int error = read_all(m.fd, target, bytes, m.offset + at)) return error;
    if (checksum(target, bytes) != m.sums[piece]) return kDamaged;
    bytes_read_ += bytes;
    return 0;
}

int FileReader::read_piece(const Matrix& m, int64_t piece, uint8_t* buffer) {
    const int64_t first = piece * m.piece_rows, count = std::min(m.piece_rows, m.tensor->shape()[0] - first);
    uint8_t* rows = buffer + m.tensor->staging_bytes(m.source);
    if (const int error = read_all(m.fd, rows, count * m.row_bytes, m.offset + first * m.row_bytes)) return error;
    for (int64_t row = 0; row < count; row += kTileRows) {
        m.tensor->store_rows(first + row, std::min(count - row, kTileRows), rows + row * m.row_bytes, m.source, buffer);
    }
    bytes_read_ += count * m.row_bytes;
    return 0;
}

}  // namespace qwick
