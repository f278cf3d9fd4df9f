// What both ways through a delta layer share: a v head's inputs, and the walk of its state through a run.
#pragma once

#include "gated_delta/gated_delta.h"

namespace qwick {

// Tokens [begin, end) of a run.
struct Tokens {
    int64_t begin, end;
    int64_t count() const { return end - begin; }
};

// One v head from the first of some tokens on, rows ld... floats apart.
struct HeadInputs {
    const float *q, *k;  // L2-normalised, q scaled by k_dim^-0.5
    int64_t ldqk;
    const float* v;
    int64_t ldv;
    const float *g, *beta;
    int64_t ldg;
    float* out;
    int64_t ldo;
};

// Lanes [first, first + width) of a v head's state.
struct Tile {
    int64_t head, first, width;
};

struct Gates {
    float g, beta;
};

// g = exp(decay * softplus(a + dt_bias)), beta = sigmoid(b), of v head j.
Gates gates_of(const GatedDeltaOp& op, int64_t j, float a, float b);

// Carries a tile of the slot's state through some tokens of the run, the snapshots among them included. A run may be
// cut, but not a draft, which is not committed: it advances in `scratch` [width * k_dim].
void advance_tile(const GatedDeltaOp& op, Step& step, const Run& run, const Tile& tile, const Tokens& tokens,
                  const HeadInputs& in, float* scratch);

int64_t longest_run(const Step& step);  // its tokens

}  // namespace qwick
