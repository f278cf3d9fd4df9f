#include "embed/embed.h"

#include <cstring>

namespace qwick {

void run(const EmbedOp& op, Step& step) {
    float* out = step.value(op.out);
    step.for_pieces(step.num_tokens(), 8, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            step.kernels.decode_row[static_cast<int>(op.table.family)](op.table, step.batch.in.token_ids[row],
                                                                       out + row * op.table.cols);
        }
    });
}

void run(const HiddenOp& op, Step& step) {
    std::memcpy(step.value(op.out), step.batch.in.hidden, step.num_tokens() * op.width * sizeof(float));
}

void run(const ConcatOp& op, Step& step) {
    const float *left = step.value(op.left), *right = step.value(op.right);
    float* out = step.value(op.out);
    for (int64_t row = 0; row < step.num_tokens(); ++row) {
        std::memcpy(out, left + row * op.left_width, op.left_width * sizeof(float));
        out += op.left_width;
        std::memcpy(out, right + row * op.right_width, op.right_width * sizeof(float));
        out += op.right_width;
    }
}

}  // namespace qwick
