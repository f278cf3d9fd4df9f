#include "norm/norm.h"

namespace qwick {

constexpr int64_t kRowsPerPiece = 4;

void run(const RmsNormOp& op, Step& step) {
    const float* x = step.value(op.x);
    float* out = step.value(op.out);
    step.for_pieces(step.num_tokens(), kRowsPerPiece, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            step.kernels.rms_norm(x + row * op.width, op.weight, op.eps, op.width, out + row * op.width);
        }
    });
}

void run(const GatedRmsNormOp& op, Step& step) {
    const float *x = step.value(op.x), *gate = step.value(op.gate);
    float* out = step.value(op.out);
    step.for_pieces(step.num_tokens() * op.heads, kRowsPerPiece * 4, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t at = i * op.dim;
            step.kernels.gated_rms_norm(x + at, gate + at, op.weight, op.eps, op.dim, out + at);
        }
    });
}

}  // namespace qwick
