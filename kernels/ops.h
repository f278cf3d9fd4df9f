// A program's ops in the order they run. Each op and its driver live in a folder of their own.
#pragma once

#include <variant>

#include "attention/attention.h"
#include "causal_conv/causal_conv.h"
#include "embed/embed.h"
#include "gated_delta/gated_delta.h"
#include "linear/linear.h"
#include "norm/norm.h"
#include "rope/rope.h"
#include "sample/head.h"

namespace qwick {

using Op = std::variant<EmbedOp, HiddenOp, ConcatOp, RmsNormOp, GatedRmsNormOp, NormRopeOp, LinearOp, GateUpOp,
                        CausalConvOp, GatedDeltaOp, DeltaNetOp, ReplayOp, AttentionOp, HeadOp>;

}  // namespace qwick
