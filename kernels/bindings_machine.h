// What the machine offers (for `qwick doctor`), and the pool under stress (for its tests).
#pragma once

#include <nanobind/nanobind.h>

namespace qwick {

void bind_machine(nanobind::module_& module);

}  // namespace qwick
