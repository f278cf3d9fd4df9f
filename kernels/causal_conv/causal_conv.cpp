#include "causal_conv/causal_conv.h"

#include <cstring>

namespace qwick {
namespace {

constexpr int64_t kMaxTaps = 16;

struct Convolution {
    const CausalConvOp& op;
    Step& step;
    const float* x;
    const float* zeros;  // a column before the sequence

    int64_t carried() const { return op.num_taps - 1; }
    float* slot(int64_t index) const { return step.cache->conv(op.layer, index); }

    // The input `t` tokens into the run; a negative t reaches into what the slot carries.
    const float* column(const Run& run, int64_t t) const {
        if (t >= 0) return x + (run.begin + t) * op.channels;
        return run.context_len == 0 ? zeros : slot(run.slot) + (carried() + t) * op.channels;
    }

    void output_row(int64_t row, float* out) const {
        const Run& run = step.batch.runs[step.batch.run_of_row[row]];
        const float* columns[kMaxTaps];
        for (int64_t i = 0; i < op.num_taps; ++i) columns[i] = column(run, row - run.begin - carried() + i);
        step.kernels.conv_silu(columns, op.taps.data(), op.num_taps, op.channels, out);
    }

    // The columns carried after `num_tokens` tokens of the run. Ascending, so that a short run may shift its own slot.
    void carry(const Run& run, int64_t num_tokens, float* target) const {
        for (int64_t i = 0; i < carried(); ++i) {
            std::memmove(target + i * op.channels, column(run, num_tokens - carried() + i),
                         op.channels * sizeof(float));
        }
    }

    void keep(const Run& run) const {
        for (int64_t i = 0; i < run.num_snapshots; ++i)
            carry(run, run.snapshots[i].num_tokens, slot(run.snapshots[i].slot));
        if (run.commit) {
            carry(run, run.num_tokens, slot(run.slot));
            return;
        }
        for (int64_t t = 0; t < run.num_tokens; ++t) {
            std::memcpy(step.cache->pending(op.layer, run.slot, t), column(run, t), op.channels * sizeof(float));
        }
    }
};

}  // namespace

void convolve(const CausalConvOp& op, Step& step, const float* x, float* out) {
    float* zeros = step.scratch.get<float>(op.channels);
    std::memset(zeros, 0, op.channels * sizeof(float));
    const Convolution convolution{op, step, x, zeros};
    step.for_pieces(step.num_tokens(), 4, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) convolution.output_row(row, out + row * op.channels);
    });
    step.pool.for_each(static_cast<int64_t>(step.batch.runs.size()),
                       [&](int64_t i, int) { convolution.keep(step.batch.runs[i]); });
}

void run(const CausalConvOp& op, Step& step) {
    convolve(op, step, step.value(op.x), step.value(op.out));
}

}  // namespace qwick
