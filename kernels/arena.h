// Memory for weights, cache and activations: 2 MiB-aligned mappings on transparent huge pages.
//
// File mappings get no huge pages, and with 4 KiB pages the TLB costs a decode step some 10 %. So weights are copied
// here once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace qwick {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kAlignment = 64;

// Bytes this process may still take: the smallest of the machine's available memory and the cgroups' limits.
size_t available_memory();

// a * b; throws CapacityError when the product of two sizes does not fit.
size_t checked_product(size_t a, size_t b);

// One anonymous, zeroed mapping.
class Mapping {
  public:
    Mapping() = default;
    explicit Mapping(size_t bytes);  // throws CapacityError
    ~Mapping();
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&& other) noexcept;

    std::byte* data() const { return data_; }
    size_t size() const { return size_; }

  private:
    std::byte* data_ = nullptr;
    size_t size_ = 0;  // as asked; the mapping is whole huge pages
};

size_t total_bytes(const std::vector<Mapping>& mappings);

// Grows by chunks; what it gave out lives as long as the arena. Not thread safe.
class Arena {
  public:
    // `reserve` bytes come from one first chunk: give the size of the model when it is known.
    explicit Arena(size_t reserve = 0);

    std::byte* allocate(size_t bytes);  // zeroed, 64-byte aligned; throws CapacityError

    size_t used_bytes() const { return used_; }
    size_t reserved_bytes() const;

    // Keeps the memory from being swapped out. Throws CapacityError naming RLIMIT_MEMLOCK.
    void lock();

  private:
    void add_chunk(size_t bytes);

    std::vector<Mapping> chunks_;
    size_t offset_ = 0;  // in the last chunk
    size_t used_ = 0;
    bool locked_ = false;
};

// Working memory of one op at a time: pointers are good until reset(). Settles into one mapping, then allocates no
// more.
class Scratch {
  public:
    template <class T>
    T* get(size_t count) {
        return reinterpret_cast<T*>(take(checked_product(count, sizeof(T))));
    }
    void reset();
    size_t num_bytes() const { return total_bytes(chunks_); }

  private:
    std::byte* take(size_t bytes);

    std::vector<Mapping> chunks_;
    size_t offset_ = 0;
};

}  // namespace qwick
