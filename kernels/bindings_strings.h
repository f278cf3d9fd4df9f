#pragma once

#include <nanobind/nanobind.h>

namespace qwick {

void bind_strings(nanobind::module_& m);

}  // namespace qwick
