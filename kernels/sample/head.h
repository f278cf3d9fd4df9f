// The LM head over the wanted rows: all logits, or the largest few, and the log-sum-exp if asked for; the batch's edits
// of single logits come before the choice and after the log-sum-exp. All rows have decode numerics, whatever their
// role.
#pragma once

#include "step.h"

namespace qwick {

struct HeadOp {
    BufferId x;
    Weight table;
};

void run(const HeadOp& op, Step& step);

}  // namespace qwick
