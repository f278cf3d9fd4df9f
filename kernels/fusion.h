// Joins ops of a recording that one native op does in fewer parallel sections, to the same bits.
#pragma once

#include "program.h"

namespace qwick {

// Convolution, delta rule and gated norm that stand one after another, where nobody else reads what passes between
// them: one DeltaNetOp.
void fuse(Recording& recording);

}  // namespace qwick
