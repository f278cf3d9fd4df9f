#include "runtime.h"

#include "errors.h"

namespace qwick {

Runtime::Runtime(const std::string& isa, int threads_, int threads_batch_, size_t reserve_bytes)
    : dispatch(make_dispatch(choose_isa(isa))), weights(std::make_shared<Arena>(reserve_bytes)) {
    set_threads(threads_, threads_batch_);
}

void Runtime::set_threads(int threads_, int threads_batch_) {
    for (int count : {threads_, threads_batch_}) {
        if (count < 1 || count > kMaxThreads) {
            throw KernelError("the number of threads must be 1 to " + std::to_string(kMaxThreads) + ", not " +
                              std::to_string(count));
        }
    }
    threads = threads_;
    threads_batch = threads_batch_;
}

std::shared_ptr<Tensor> Runtime::add_matrix(const std::string& name, int64_t rows, int64_t cols, Family family) {
    return std::make_shared<Tensor>(name, rows, cols, family, weights);
}

void Runtime::open_cache(const CacheShape& shape) {
    cache.reset();  // before the new one: both together may not fit
    cache = std::make_unique<Cache>(shape);
}

Cache& Runtime::opened_cache() {
    if (!cache) throw KernelError("no cache was opened");
    return *cache;
}

}  // namespace qwick
