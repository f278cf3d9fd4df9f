// What the native code throws. bindings.cpp turns each into the exception of the same name in qwick.errors.
#pragma once

#include <stdexcept>

namespace qwick {

struct KernelError : std::runtime_error {  // malformed input, or an impossible instruction set
    using std::runtime_error::runtime_error;
};

struct CapacityError : std::runtime_error {  // memory, rows, pages or slots do not suffice
    using std::runtime_error::runtime_error;
};

}  // namespace qwick
