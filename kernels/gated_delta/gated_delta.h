// The gated delta rule over ragged runs, its state carried in the slot; and the replay of accepted draft tokens.
#pragma once

#include "causal_conv/causal_conv.h"
#include "step.h"

namespace qwick {

struct GatedDeltaOp {
    BufferId qkv, a, b;
    const float *decay, *dt_bias;  // [num_v]
    int64_t layer;
    DeltaHeads heads;
    BufferId out;
};

struct ReplayOp {
    CausalConvOp conv;
    GatedDeltaOp delta;
};

void run(const GatedDeltaOp& op, Step& step);
void run(const ReplayOp& op, Step& step);

}  // namespace qwick
