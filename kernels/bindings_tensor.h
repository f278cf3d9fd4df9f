// qwick._kernels.Tensor and decode: weights on their way in, and read back.
#pragma once

#include <nanobind/nanobind.h>

namespace qwick {

void bind_tensor(nanobind::module_& module);

}  // namespace qwick
