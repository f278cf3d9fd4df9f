// What each op of a recording is and which weights it reads, in words and bytes: for profiles.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "program.h"

namespace qwick {

struct OpNote {
    const char* kind;
    std::string weights;  // names of its matrices, with spaces between
    size_t bytes;         // of those, read once a step; 0 for a table of which rows are gathered
};

std::vector<OpNote> notes_of(const Recording& recording);

}  // namespace qwick
