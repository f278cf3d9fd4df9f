#include "causal_conv/causal_conv.h"

#include <algorithm>
#include <cstring>

namespace qwick {

constexpr int64_t kMaxTaps = 16, kTokensAtOnce = 32;

// The inputs `t` tokens into the run; a negative t reaches into what the slot carries.
const float* ConvRun::column(int64_t t, int64_t first) const {
    if (t >= 0) return x + t * ldx + first;
    return before ? before + (op.carried() + t) * op.channels + first : zeros;
}

void ConvRun::output(const Kernels& kernels, int64_t begin, int64_t end, int64_t first, int64_t count, float* out,
                     int64_t ldo) const {
    const float* columns[kMaxTaps - 1 + kTokensAtOnce];
    for (int64_t t = begin; t < end; t += kTokensAtOnce, out += kTokensAtOnce * ldo) {
        const int64_t num = std::min(kTokensAtOnce, end - t);
        for (int64_t i = 0; i < op.carried() + num; ++i) columns[i] = column(t - op.carried() + i, first);
        kernels.conv_silu(columns, op.taps.data() + first, op.channels, op.num_taps, count, num, out, ldo);
    }
}

// Ascending, so that a short run may shift its own slot.
void ConvRun::carry(int64_t num_tokens, int64_t first, int64_t count, float* slot) const {
    for (int64_t i = 0; i < op.carried(); ++i) {
        const float* source = column(num_tokens - op.carried() + i, first);
        std::memmove(slot + i * op.channels + first, source, count * sizeof(float));
    }
}

void keep_inputs(const ConvRun& conv, Step& step, const Run& run, int64_t first, int64_t count) {
    const int64_t layer = conv.op.layer;
    for (int64_t i = 0; i < run.num_snapshots; ++i) {
        conv.carry(run.snapshots[i].num_tokens, first, count, step.cache->conv(layer, run.snapshots[i].slot));
    }
    if (run.commit) conv.carry(run.num_tokens, first, count, step.cache->conv(layer, run.slot));
    for (int64_t t = 0; !run.commit && t < run.num_tokens; ++t) {
        float* lane = step.cache->pending(layer, run.slot, t) + first;
        std::memcpy(lane, conv.x + t * conv.ldx + first, count * sizeof(float));
    }
}

void run(const CausalConvOp& op, Step& step) {
    const Batch& batch = step.batch;
    const float* x = step.value(op.x);
    float *out = step.value(op.out), *zeros = step.scratch.get<float>(op.channels);
    std::memset(zeros, 0, op.channels * sizeof(float));
    const auto conv_of = [&](const Run& run) {
        return ConvRun::of(op, step, run, x + run.begin * op.channels, op.channels, zeros);
    };
    step.for_pieces(step.num_tokens(), 4, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end;) {
            const Run& run = batch.runs[batch.run_of_row[row]];
            const int64_t stop = std::min(end, run.begin + run.num_tokens);
            conv_of(run).output(step.kernels, row - run.begin, stop - run.begin, 0, op.channels,
                                out + row * op.channels, op.channels);
            row = stop;
        }
    });
    step.pool.for_each(static_cast<int64_t>(batch.runs.size()), [&](int64_t i, int) {
        keep_inputs(conv_of(batch.runs[i]), step, batch.runs[i], 0, op.channels);
    });
}

}  // namespace qwick
