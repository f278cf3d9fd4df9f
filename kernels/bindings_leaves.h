// qwick._kernels.leaves: each leaf kernel of each instruction set by itself, on arrays. For tests only.
#pragma once

#include <nanobind/nanobind.h>

namespace qwick {

// Adds the submodule `leaves` to `module`.
void bind_leaves(nanobind::module_& module);

}  // namespace qwick
