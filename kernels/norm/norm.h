// RMS norms over whole rows and over heads.
#pragma once

#include "step.h"

namespace qwick {

struct RmsNormOp {
    BufferId x;
    const float* weight;
    int64_t width;
    float eps;
    BufferId out;
};

struct GatedRmsNormOp {
    BufferId x, gate;
    const float* weight;  // [dim]
    int64_t heads, dim;
    float eps;
    BufferId out;
};

void run(const RmsNormOp& op, Step& step);
void run(const GatedRmsNormOp& op, Step& step);

}  // namespace qwick
