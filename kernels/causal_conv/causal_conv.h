// The depthwise causal convolution of the delta layers, its last inputs carried in the slot.
#pragma once

#include <vector>

#include "step.h"

namespace qwick {

struct CausalConvOp {
    BufferId x;
    std::vector<float> taps;  // [num_taps][channels]: turned from the checkpoint's [channels][num_taps]
    int64_t num_taps, channels, layer;
    BufferId out;
};

void run(const CausalConvOp& op, Step& step);

// x, out [tokens, channels] of the batch's runs; also for a commit's replay.
void convolve(const CausalConvOp& op, Step& step, const float* x, float* out);

}  // namespace qwick
