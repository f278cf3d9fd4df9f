// How fast memory can be read: the limit of decoding, measured.
#pragma once

#include <cstddef>

namespace qwick {

// Bytes per second at which `threads` threads of a pool read a buffer of `bytes` (huge pages, every page written
// before) in pieces of a decode step's size. The best pass of those that fit into `seconds`, at least three: what
// others on the machine take shows as slow passes. Give a buffer larger than the caches. Throws CapacityError,
// KernelError.
double read_stream(size_t bytes, int threads, double seconds);

}  // namespace qwick
