// Decode steps, verifications and replays: at most kMaxDraftLen tokens a run. One item is a run's k head with the v
// heads that read it: it convolves its own channels, normalises, computes the gates and carries the states through,
// from memory once and back once. Leaves and their order are those of long runs, so are the bits.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "gated_delta/gated_delta.h"
#include "gated_delta/recurrence.h"

namespace qwick {
namespace {

// A run's rows as the projections or a pending lane hold them.
struct RunInputs {
    const float *qkv, *a, *b;
    int64_t ldqkv, ldab;
    const float* gate;  // of the norm, [tokens][num_v * v_dim]; null: the output is not wanted
    float* out;
};

// What one item works in: its convolved channels, gates, outputs and, for a draft, a tile of its state.
struct Workspace {
    float *q, *k, *v, *out, *state, *g, *beta;

    static int64_t size(const DeltaHeads& h) {
        return kMaxDraftLen * (2 * h.k_dim + 2 * h.v_dim + 2) + kStateTile * h.k_dim;
    }
    Workspace(float* memory, const DeltaHeads& h)
        : q(memory),
          k(q + kMaxDraftLen * h.k_dim),
          v(k + kMaxDraftLen * h.k_dim),
          out(v + kMaxDraftLen * h.v_dim),
          state(out + kMaxDraftLen * h.v_dim),
          g(state + kStateTile * h.k_dim),
          beta(g + kMaxDraftLen) {}
};

struct ShortRun {
    const GatedDeltaOp& op;
    const GatedRmsNormOp* norm;
    Step& step;
    const Run& run;
    const RunInputs& in;
    const ConvRun& conv;
    const Workspace& work;

    void convolve(int64_t first, int64_t count, float* out) const {
        for (int64_t t = 0; t < run.num_tokens; ++t) conv.output(step.kernels, t, first, count, out + t * count);
        keep_inputs(conv, step, run, first, count);
    }

    void normalise(float* x, float scale) const {
        const int64_t dim = op.heads.k_dim;
        for (int64_t t = 0; t < run.num_tokens; ++t) step.kernels.l2_norm(x + t * dim, dim, scale, x + t * dim);
    }

    void k_head(int64_t head) const {
        const DeltaHeads& h = op.heads;
        convolve(head * h.k_dim, h.k_dim, work.q);
        convolve((h.num_k + head) * h.k_dim, h.k_dim, work.k);
        normalise(work.q, 1 / std::sqrt(static_cast<float>(h.k_dim)));
        normalise(work.k, 1);
        for (int64_t j = head; j < h.num_v; j += h.num_k) v_head(j);
    }

    void v_head(int64_t head) const {
        const DeltaHeads& h = op.heads;
        convolve(2 * h.num_k * h.k_dim + head * h.v_dim, h.v_dim, work.v);
        for (int64_t t = 0; t < run.num_tokens; ++t) {
            const Gates gates = gates_of(op, head, in.a[t * in.ldab + head], in.b[t * in.ldab + head]);
            work.g[t] = gates.g;
            work.beta[t] = gates.beta;
        }
        const HeadInputs inputs{work.q, work.k, h.k_dim, work.v, h.v_dim, work.g, work.beta, 1, work.out, h.v_dim};
        const int64_t width = run.commit ? h.v_dim : kStateTile;  // a draft's state advances in a copy
        for (int64_t first = 0; first < h.v_dim; first += width) {
            const Tile tile{head, first, std::min(width, h.v_dim - first)};
            advance_tile(op, step, run, tile, inputs, work.state);
        }
        if (norm) finish(head);
        if (!run.commit) keep_gates(head);
    }

    void finish(int64_t head) const {
        const int64_t dim = op.heads.v_dim, width = op.heads.num_v * dim;
        for (int64_t t = 0; t < run.num_tokens; ++t) {
            const int64_t at = t * width + head * dim;
            step.kernels.gated_rms_norm(work.out + t * dim, in.gate + at, norm->weight, norm->eps, dim, in.out + at);
        }
    }

    void keep_gates(int64_t head) const {
        for (int64_t t = 0; t < run.num_tokens; ++t) {
            float* lane = step.cache->pending(op.layer, run.slot, t) + op.heads.channels();
            lane[head] = in.a[t * in.ldab + head];
            lane[op.heads.num_v + head] = in.b[t * in.ldab + head];
        }
    }
};

// inputs_of(run) -> RunInputs.
template <class F>
void advance_short_runs(const CausalConvOp& conv, const GatedDeltaOp& op, const GatedRmsNormOp* norm, Step& step,
                        F&& inputs_of) {
    const DeltaHeads& h = op.heads;
    const int64_t size = Workspace::size(h), widest = std::max(h.k_dim, h.v_dim);
    float *memory = step.scratch.get<float>(size * step.pool.threads()), *zeros = step.scratch.get<float>(widest);
    std::memset(zeros, 0, widest * sizeof(float));
    const auto num_runs = static_cast<int64_t>(step.batch.runs.size());
    step.pool.for_each(num_runs * h.num_k, [&](int64_t item, int thread) {
        const Run& run = step.batch.runs[item / h.num_k];
        if (run.num_tokens > kMaxDraftLen) return;
        const RunInputs in = inputs_of(run);
        const ConvRun columns = ConvRun::of(conv, step, run, in.qkv, in.ldqkv, zeros);
        const Workspace work(memory + thread * size, h);
        ShortRun{op, norm, step, run, in, columns, work}.k_head(item % h.num_k);
    });
}

}  // namespace

void run(const DeltaNetOp& op, Step& step) {
    const DeltaHeads& h = op.delta.heads;
    const int64_t channels = h.channels(), width = h.num_v * h.v_dim;
    const float *qkv = step.value(op.conv.x), *a = step.value(op.delta.a), *b = step.value(op.delta.b);
    const float* gate = step.value(op.norm.gate);
    float* out = step.value(op.norm.out);
    const auto is_long = [](const Run& run) { return run.num_tokens > kMaxDraftLen; };
    if (std::any_of(step.batch.runs.begin(), step.batch.runs.end(), is_long)) {
        convolve(op.conv, step, kMaxDraftLen + 1);
        recur(op.delta, step, kMaxDraftLen + 1);
        normalise(op.norm, step, kMaxDraftLen + 1);
    }
    advance_short_runs(op.conv, op.delta, &op.norm, step, [&](const Run& run) {
        const int64_t row = run.begin;
        return RunInputs{qkv + row * channels, a + row * h.num_v, b + row * h.num_v, channels, h.num_v,
                         gate + row * width,   out + row * width};
    });
}

// The accepted tokens once more, from the pending lanes.
void run(const ReplayOp& op, Step& step) {
    const DeltaHeads& h = op.delta.heads;
    const int64_t width = step.cache->pending_width();
    advance_short_runs(op.conv, op.delta, nullptr, step, [&](const Run& run) {
        const float* lane = step.cache->pending(op.delta.layer, run.slot, 0);
        return RunInputs{lane, lane + h.channels(), lane + h.channels() + h.num_v, width, width, nullptr, nullptr};
    });
}

}  // namespace qwick
