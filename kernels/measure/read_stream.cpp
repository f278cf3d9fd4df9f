#include "measure/read_stream.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>

#include "arena.h"
#include "errors.h"
#include "thread_pool.h"

namespace qwick {
namespace {

constexpr size_t kPiece = size_t{64} << 10;  // some microseconds, as the pieces of a matrix
constexpr size_t kLine = 64;
constexpr size_t kAhead = 2048;  // bytes prefetched ahead; without it one core reads half as fast (docs/LOG.md)
constexpr int kLeastPasses = 3;

// Wrapping sums of eight words a line: the compiler turns each line into vector additions.
uint64_t sum_lines(const std::byte* data, size_t bytes) {
    uint64_t sums[kLine / sizeof(uint64_t)] = {};
    for (size_t i = 0; i < bytes; i += kLine) {
        __builtin_prefetch(data + i + kAhead);  // past the end: a prefetch never faults
        uint64_t words[kLine / sizeof(uint64_t)];
        std::memcpy(words, data + i, kLine);
        for (size_t j = 0; j < kLine / sizeof(uint64_t); ++j) sums[j] += words[j];
    }
    uint64_t sum = 0;
    for (uint64_t part : sums) sum += part;
    return sum;
}

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

double read_stream(size_t bytes, int threads, double seconds) {
    if (bytes < kPiece || !(seconds >= 0)) throw KernelError("a read stream needs at least 64 KiB, and a time");
    if (threads < 1 || threads > kMaxThreads) throw KernelError("the number of threads must be 1 to 1024");
    bytes = bytes / kPiece * kPiece;
    const Mapping buffer(bytes);
    ThreadPool pool;
    const PoolRun pool_run(pool, threads);
    const auto pieces = static_cast<int64_t>(bytes / kPiece);
    // Written, or all pages would be the one zero page, which stays in the cache.
    pool.for_each(pieces, [&](int64_t i, int) { std::memset(buffer.data() + i * kPiece, 1, kPiece); });
    std::atomic<uint64_t> total{0};  // so that no pass can be left out
    double best = 0, begin = now();
    const double end = begin + seconds;
    for (int pass = 0; pass < kLeastPasses || begin < end; ++pass) {
        pool.for_each(pieces, [&](int64_t i, int) {
            total.fetch_add(sum_lines(buffer.data() + i * kPiece, kPiece), std::memory_order_relaxed);
        });
        const double done = now();
        best = std::max(best, static_cast<double>(bytes) / std::max(done - begin, 1e-9));
        begin = done;
    }
    if (total.load() == 0) throw KernelError("the memory that was written reads as zero");
    return best;
}

}  // namespace qwick
