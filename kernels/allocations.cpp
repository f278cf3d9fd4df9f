#include "allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace qwick {
namespace {

std::atomic<uint64_t> count{0};

}  // namespace

uint64_t num_allocations() {
    return count.load(std::memory_order_relaxed);
}

void count_allocation() {
    count.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace qwick

// The extension's own operator new, over the same malloc as everybody's and not exported (exports.map): what libstdc++
// allocates within itself, as for long strings, is not counted. The sanitizer brings one that it must see.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QWICK_SANITIZED
#endif
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(QWICK_SANITIZED)

void* operator new(size_t size) {
    qwick::count_allocation();
    for (;;) {
        if (void* memory = std::malloc(size > 0 ? size : 1)) return memory;
        const std::new_handler handler = std::get_new_handler();
        if (!handler) throw std::bad_alloc();
        handler();
    }
}

void* operator new[](size_t size) {
    return operator new(size);
}

void operator delete(void* memory) noexcept {
    std::free(memory);
}

void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}

void operator delete[](void* memory) noexcept {
    std::free(memory);
}

void operator delete[](void* memory, size_t) noexcept {
    std::free(memory);
}

#endif
