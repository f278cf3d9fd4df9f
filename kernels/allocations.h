// How often the kernels asked the system for memory, on the heap or by mapping: a decode step must not.
#pragma once

#include <cstdint>

namespace qwick {

uint64_t num_allocations();  // since the process began, by all threads
void count_allocation();     // for memory that does not come from operator new

}  // namespace qwick
