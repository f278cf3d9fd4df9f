// What a parallel section costs beyond its work: handing out the items, and the barrier.
#pragma once

#include <vector>

namespace qwick {

// Seconds of each of `count` sections in which every thread has one item of about 4 us, less the item's own time
// (median, alone). Throws KernelError, CapacityError.
std::vector<double> section_costs(int threads, int count);

}  // namespace qwick
