#include "rope/rope.h"

namespace qwick {

void run(const NormRopeOp& op, Step& step) {
    const float* x = step.value(op.x);
    float* out = step.value(op.out);
    const int64_t half = op.rotary_dim / 2;
    const auto& in = step.batch.in;
    step.for_pieces(step.num_tokens() * op.num_heads, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t row = i / op.num_heads;
            step.kernels.norm_rope(x + i * op.stride, op.weight, op.eps, in.rope_cos + row * half,
                                   in.rope_sin + row * half, op.head_dim, op.rotary_dim, out + i * op.head_dim);
        }
    });
}

}  // namespace qwick
