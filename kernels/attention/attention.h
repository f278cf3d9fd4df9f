// Gated grouped-query attention over paged keys and values.
//
// Numerics (ops/contract.py): keys in splits of 512 absolute positions, a split in blocks of 64 with an online softmax,
// splits merged in order. So a row's result depends on its position and, with AMX, its role, not on chunking or
// threads.
#pragma once

#include "step.h"

namespace qwick {

struct AttentionOp {
    BufferId query, key, value, query_gate;
    int64_t layer;
    AttentionHeads heads;
    BufferId out;
};

void run(const AttentionOp& op, Step& step);

}  // namespace qwick
