// The table of leaf kernels that is used: each leaf from the best instruction set that has it and may be used.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cpu_features.h"
#include "kernels.h"

namespace qwick {

struct Dispatch {
    Isa isa;                                          // the best one allowed
    Kernels kernels;                                  // complete
    std::vector<std::pair<std::string, Isa>> choice;  // every leaf and the ISA that provided it
};

// `isa` must be possible on this machine (choose_isa).
Dispatch make_dispatch(Isa isa);

}  // namespace qwick
