// Matrix products: activations times a list of weights of any families.
#pragma once

#include <vector>

#include "step.h"

namespace qwick {

// One output matrix [tokens, rows of weight]. With `up`: silu(x weight^T) * (x up^T). With `residual`: added to it.
struct Product {
    Weight weight;
    const Weight* up = nullptr;
    const float* residual = nullptr;
    float* out = nullptr;
};

// Decode rows take int8 activations for weights of blocks, prompt rows int16 ones for all but f32 (see
// ops/contract.py); each is prepared once and shared by all products. x is [spans.back().end, k].
void multiply(Step& step, const float* x, int64_t k, const std::vector<RowSpan>& spans, const Product* products,
              int64_t num_products);

constexpr int kMaxLinearWeights = 8;

struct LinearOp {
    BufferId x;
    std::vector<Weight> weights;
    std::vector<BufferId> outs;
    BufferId residual = -1;  // for a single weight
};

struct GateUpOp {
    BufferId x;
    Weight gate, up;
    BufferId out;
};

void run(const LinearOp& op, Step& step);
void run(const GateUpOp& op, Step& step);

}  // namespace qwick
