// Where values come from: rows of the embedding, hidden states given with the batch, two values side by side.
#pragma once

#include "step.h"

namespace qwick {

struct EmbedOp {
    Weight table;
    BufferId out;
};

struct HiddenOp {
    int64_t width = 0;  // known when its first reader says
    BufferId out;
};

struct ConcatOp {
    BufferId left, right;
    int64_t left_width, right_width;
    BufferId out;
};

void run(const EmbedOp& op, Step& step);
void run(const HiddenOp& op, Step& step);
void run(const ConcatOp& op, Step& step);

}  // namespace qwick
