// What the programs of one backend share: kernels, threads, weights' memory, the cache.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "arena.h"
#include "cache.h"
#include "dispatch.h"
#include "tensor.h"
#include "thread_pool.h"

namespace qwick {

struct Runtime {
    // isa "": the best one. Throws KernelError (impossible isa, thread counts).
    Runtime(const std::string& isa, int threads, int threads_batch, size_t reserve_bytes);

    std::shared_ptr<Tensor> add_matrix(const std::string& name, int64_t rows, int64_t cols, Family family);
    void open_cache(const CacheShape& shape);
    void set_threads(int threads, int threads_batch);
    Cache& opened_cache();

    const Dispatch dispatch;
    std::mutex running;  // one program, load or copy at a time
    ThreadPool pool;
    std::shared_ptr<Arena> weights;
    std::unique_ptr<Cache> cache;
    int threads, threads_batch;  // for batches without prompt rows, and with
};

}  // namespace qwick
