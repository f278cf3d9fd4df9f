// What the project's hashes and checksums are made of. After wyhash (Wang Yi, public domain).
#pragma once

#include <cstdint>

namespace qwick {

inline uint64_t mixed(uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace qwick
