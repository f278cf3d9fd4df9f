// qwick._kernels.leaves: the leaves of matrix products and of storage; for tests.
#pragma once

#include <nanobind/nanobind.h>

namespace qwick {

void bind_linear(nanobind::module_& leaves);

}  // namespace qwick
