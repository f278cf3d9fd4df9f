// The gated delta rule over ragged runs, its state carried in the slot; and the replay of accepted draft tokens.
#pragma once

#include "causal_conv/causal_conv.h"
#include "norm/norm.h"
#include "step.h"

namespace qwick {

struct GatedDeltaOp {
    BufferId qkv, a, b;
    const float *decay, *dt_bias;  // [num_v]
    int64_t layer;
    DeltaHeads heads;
    BufferId out;
};

// A delta layer between its projections: three ops of the contract that the recorder joins (fusion.h). One parallel
// section takes it head by head, where that keeps the threads busy; otherwise it goes op by op.
struct DeltaNetOp {
    CausalConvOp conv;
    GatedDeltaOp delta;
    GatedRmsNormOp norm;
};

struct ReplayOp {
    CausalConvOp conv;
    GatedDeltaOp delta;
};

void run(const GatedDeltaOp& op, Step& step);
void run(const DeltaNetOp& op, Step& step);
void run(const ReplayOp& op, Step& step);

}  // namespace qwick
