// qwick._kernels.Encoder: f32 rows to blocks of a file format.
#pragma once

#include <nanobind/nanobind.h>

namespace qwick {

void bind_encode(nanobind::module_& module);

}  // namespace qwick
