#include "arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "allocations.h"
#include "errors.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(begin, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(begin, bytes)
#endif

namespace qwick {
namespace {

constexpr size_t kChunk = size_t{16} << 20;
constexpr size_t kWorthAsking = size_t{64} << 20;  // below, do not read /proc for it
constexpr size_t kMaxBytes = size_t{1} << 47;

size_t round_up(size_t bytes, size_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

bool read_number(const std::string& path, size_t* value) {
    std::ifstream file(path);
    return static_cast<bool>(file >> *value);  // "max" is no number
}

size_t machine_memory() {
    std::ifstream file("/proc/meminfo");
    std::string key;
    for (size_t kilobytes; file >> key >> kilobytes; file.ignore(64, '\n')) {
        if (key == "MemAvailable:") return kilobytes << 10;
    }
    return SIZE_MAX;
}

size_t cgroup_memory(const std::string& folder) {
    size_t limit, used;
    if (!read_number(folder + "/memory.max", &limit) || !read_number(folder + "/memory.current", &used))
        return SIZE_MAX;
    return limit > used ? limit - used : 0;
}

}  // namespace

size_t available_memory() {
    size_t bytes = std::min(machine_memory(), cgroup_memory("/sys/fs/cgroup"));
    std::ifstream file("/proc/self/cgroup");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("0::/", 0) != 0) continue;
        for (std::string path = line.substr(3); path.size() > 1; path.resize(path.rfind('/'))) {
            bytes = std::min(bytes, cgroup_memory("/sys/fs/cgroup" + path));
        }
    }
    return bytes;
}

size_t checked_product(size_t a, size_t b) {
    size_t product;
    if (__builtin_mul_overflow(a, b, &product) || product > kMaxBytes) {
        throw CapacityError("a buffer would be larger than any machine's memory");
    }
    return product;
}

Mapping::Mapping(size_t bytes) : size_(bytes) {
    if (bytes == 0) return;
    if (bytes > kMaxBytes || (bytes > kWorthAsking && bytes > available_memory())) {
        throw CapacityError("not enough memory: " + std::to_string(bytes >> 20) + " MiB are needed, " +
                            std::to_string(available_memory() >> 20) + " MiB are available");
    }
    const size_t rounded = round_up(bytes, kHugePage);
    void* raw =
        mmap(nullptr, rounded + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) {
        throw CapacityError("the system refuses " + std::to_string(bytes >> 20) + " MiB: " + std::strerror(errno));
    }
    auto* begin = static_cast<std::byte*>(raw);
    data_ = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<size_t>(begin), kHugePage));
    if (data_ > begin) munmap(begin, data_ - begin);
    munmap(data_ + rounded, kHugePage - (data_ - begin));
    madvise(data_, rounded, MADV_HUGEPAGE);  // advice: a kernel without it is slower, not wrong
    count_allocation();
    ASAN_POISON_MEMORY_REGION(data_ + bytes, rounded - bytes);
}

Mapping::~Mapping() {
    if (!data_) return;
    const size_t rounded = round_up(size_, kHugePage);
    ASAN_UNPOISON_MEMORY_REGION(data_, rounded);
    munmap(data_, rounded);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

size_t total_bytes(const std::vector<Mapping>& mappings) {
    size_t bytes = 0;
    for (const Mapping& mapping : mappings) bytes += mapping.size();
    return bytes;
}

Arena::Arena(size_t reserve) {
    if (reserve > 0) add_chunk(reserve);
}

void Arena::add_chunk(size_t bytes) {
    chunks_.emplace_back(round_up(bytes, kHugePage));
    offset_ = 0;
    ASAN_POISON_MEMORY_REGION(chunks_.back().data(), chunks_.back().size());
    if (locked_) lock();
}

std::byte* Arena::allocate(size_t bytes) {
    if (bytes > kMaxBytes) throw CapacityError("a tensor would be larger than any machine's memory");
    const size_t rounded = round_up(bytes, kAlignment);
    if (chunks_.empty() || chunks_.back().size() - offset_ < rounded) add_chunk(std::max(rounded, kChunk));
    std::byte* data = chunks_.back().data() + offset_;
    ASAN_UNPOISON_MEMORY_REGION(data, bytes);
    offset_ += rounded;
    used_ += rounded;
    return data;
}

size_t Arena::reserved_bytes() const {
    return total_bytes(chunks_);
}

void Arena::lock() {
    locked_ = true;
    for (const Mapping& chunk : chunks_) {
        if (mlock(chunk.data(), chunk.size()) == 0) continue;
        throw CapacityError("cannot lock " + std::to_string(reserved_bytes() >> 20) + " MiB of weights in memory (" +
                            std::strerror(errno) + "); raise the limit with `ulimit -l`");
    }
}

void Scratch::reset() {
    if (chunks_.size() > 1) {  // as much as the last op took, in one piece, for the next time
        const size_t bytes = total_bytes(chunks_);
        chunks_.clear();
        chunks_.emplace_back(bytes);
    }
    offset_ = 0;
}

std::byte* Scratch::take(size_t bytes) {
    const size_t rounded = round_up(bytes, kAlignment);
    if (chunks_.empty() || chunks_.back().size() - offset_ < rounded) {
        chunks_.emplace_back(std::max(rounded, kHugePage));
        offset_ = 0;
    }
    std::byte* data = chunks_.back().data() + offset_;
    offset_ += rounded;
    return data;
}

}  // namespace qwick
