// Per-head norm of queries and keys, then the partial rotation by the batch's angles.
#pragma once

#include "step.h"

namespace qwick {

struct NormRopeOp {
    BufferId x;
    const float* weight;  // [head_dim]
    float eps;
    int64_t num_heads, head_dim, rotary_dim;
    int64_t stride;  // from head to head in x: 2 head_dim where a gate lies behind each query
    BufferId out;
};

void run(const NormRopeOp& op, Step& step);

}  // namespace qwick
