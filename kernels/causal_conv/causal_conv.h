// The depthwise causal convolution of the delta layers, its last inputs carried in the slot.
#pragma once

#include <vector>

#include "step.h"

namespace qwick {

struct CausalConvOp {
    BufferId x;
    std::vector<float> taps;  // [num_taps][channels]: turned from the checkpoint's [channels][num_taps]
    int64_t num_taps, channels, layer;
    BufferId out;

    int64_t carried() const { return num_taps - 1; }
};

// The convolution of one run, for any part of the channels.
struct ConvRun {
    const CausalConvOp& op;
    const float* x;  // the run's first token, its rows ldx floats apart
    int64_t ldx;
    const float* before;  // [num_taps - 1][channels]: what the slot carries; null: the sequence begins, zeros
    const float* zeros;   // as many as channels are asked for

    static ConvRun of(const CausalConvOp& op, const Step& step, const Run& run, const float* x, int64_t ldx,
                      const float* zeros) {
        return {op, x, ldx, run.context_len == 0 ? nullptr : step.cache->conv(op.layer, run.slot), zeros};
    }

    // Channels [first, first + count) of the run's tokens [begin, end), rows of `out` ldo floats apart.
    void output(const Kernels& kernels, int64_t begin, int64_t end, int64_t first, int64_t count, float* out,
                int64_t ldo) const;
    // The columns carried after `num_tokens` tokens, to a slot's; it may be the run's own.
    void carry(int64_t num_tokens, int64_t first, int64_t count, float* slot) const;

  private:
    const float* column(int64_t t, int64_t first) const;
};

// Slots after a run: what its snapshots, its own slot or its pending lane hold of the channels' inputs.
void keep_inputs(const ConvRun& conv, Step& step, const Run& run, int64_t first, int64_t count);

void run(const CausalConvOp& op, Step& step);

}  // namespace qwick
