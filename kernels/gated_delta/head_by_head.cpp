// A delta layer in one parallel section. An item is a run's k head with the v heads that read it: chunk by chunk it
// convolves its own channels, normalises, computes the gates, carries the states through and norms the output, so that
// nothing between projections travels through memory. Leaves and their order are those of the ops apart, so are the
// bits.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "gated_delta/gated_delta.h"
#include "gated_delta/recurrence.h"

namespace qwick {
namespace {

// Tokens that go through an item's steps together: q and k of a chunk and a tile of the state stay in the nearest
// caches. At least a draft, which is never cut.
constexpr int64_t kChunk = 64;
static_assert(kChunk >= kMaxDraftLen);

// A run's rows as the projections or a pending lane hold them.
struct RunInputs {
    const float *qkv, *a, *b;
    int64_t ldqkv, ldab;
    const float* gate;  // of the norm, [tokens][num_v * v_dim]; null: the output is not wanted
    float* out;
};

// What one item works in: the convolved channels of a chunk, gates, outputs and, for a draft, a tile of its state.
struct Workspace {
    float *q, *k, *v, *out, *state, *g, *beta;

    static int64_t size(const DeltaHeads& h, int64_t tokens) {
        return tokens * (2 * h.k_dim + 2 * h.v_dim + 2) + kStateTile * h.k_dim;
    }
    Workspace(float* memory, const DeltaHeads& h, int64_t tokens)
        : q(memory),
          k(q + tokens * h.k_dim),
          v(k + tokens * h.k_dim),
          out(v + tokens * h.v_dim),
          state(out + tokens * h.v_dim),
          g(state + kStateTile * h.k_dim),
          beta(g + tokens) {}
};

struct HeadOfRun {
    const GatedDeltaOp& op;
    const GatedRmsNormOp* norm;
    Step& step;
    const Run& run;
    const RunInputs& in;
    const ConvRun& conv;
    const Workspace& work;

    void k_head(int64_t head) const {
        const DeltaHeads& h = op.heads;
        for (int64_t begin = 0; begin < run.num_tokens; begin += kChunk) {
            chunk(head, {begin, std::min<int64_t>(begin + kChunk, run.num_tokens)});
        }
        keep_inputs(conv, step, run, head * h.k_dim, h.k_dim);
        keep_inputs(conv, step, run, (h.num_k + head) * h.k_dim, h.k_dim);
        for (int64_t j = head; j < h.num_v; j += h.num_k) {
            keep_inputs(conv, step, run, first_of_v(j), h.v_dim);
            if (!run.commit) keep_gates(j);
        }
    }

    void chunk(int64_t head, const Tokens& tokens) const {
        const DeltaHeads& h = op.heads;
        convolve(head * h.k_dim, h.k_dim, tokens, work.q);
        convolve((h.num_k + head) * h.k_dim, h.k_dim, tokens, work.k);
        normalise(work.q, tokens.count(), 1 / std::sqrt(static_cast<float>(h.k_dim)));
        normalise(work.k, tokens.count(), 1);
        fetch(in.qkv + head * h.k_dim, in.ldqkv, h.k_dim, after(tokens));
        fetch(in.qkv + (h.num_k + head) * h.k_dim, in.ldqkv, h.k_dim, after(tokens));
        for (int64_t j = head; j < h.num_v; j += h.num_k) v_head(j, tokens);
    }

    // Rows are short and a page apart: no hardware prefetches them, and they are asked for while the rule computes.
    static void fetch(const float* x, int64_t ldx, int64_t count, const Tokens& tokens) {
        constexpr int64_t kLineFloats = 16;
        for (int64_t t = tokens.begin; t < tokens.end; ++t) {
            for (int64_t i = 0; i < count; i += kLineFloats) __builtin_prefetch(x + t * ldx + i, 0, 2);
        }
    }

    Tokens after(const Tokens& tokens) const {  // the next chunk
        return {tokens.end, std::min<int64_t>(tokens.end + kChunk, run.num_tokens)};
    }

    void v_head(int64_t head, const Tokens& tokens) const {
        const DeltaHeads& h = op.heads;
        convolve(first_of_v(head), h.v_dim, tokens, work.v);
        for (int64_t i = 0, at = tokens.begin * in.ldab + head; i < tokens.count(); ++i, at += in.ldab) {
            const Gates gates = gates_of(op, head, in.a[at], in.b[at]);
            work.g[i] = gates.g;
            work.beta[i] = gates.beta;
        }
        fetch(in.qkv + first_of_v(head), in.ldqkv, h.v_dim, after(tokens));
        if (norm) fetch(in.gate + head * h.v_dim, h.num_v * h.v_dim, h.v_dim, tokens);
        const HeadInputs inputs{work.q, work.k, h.k_dim, work.v, h.v_dim, work.g, work.beta, 1, work.out, h.v_dim};
        const int64_t width = run.commit ? h.v_dim : kStateTile;  // a draft's state advances in a copy
        for (int64_t first = 0; first < h.v_dim; first += width) {
            const Tile tile{head, first, std::min(width, h.v_dim - first)};
            advance_tile(op, step, run, tile, tokens, inputs, work.state);
        }
        if (norm) finish(head, tokens);
    }

    int64_t first_of_v(int64_t head) const { return 2 * op.heads.num_k * op.heads.k_dim + head * op.heads.v_dim; }

    void convolve(int64_t first, int64_t count, const Tokens& tokens, float* out) const {
        conv.output(step.kernels, tokens.begin, tokens.end, first, count, out, count);
    }

    void normalise(float* x, int64_t num_tokens, float scale) const {
        const int64_t dim = op.heads.k_dim;
        for (int64_t i = 0; i < num_tokens; ++i) step.kernels.l2_norm(x + i * dim, dim, scale, x + i * dim);
    }

    void finish(int64_t head, const Tokens& tokens) const {
        const int64_t dim = op.heads.v_dim, width = op.heads.num_v * dim;
        for (int64_t i = 0; i < tokens.count(); ++i) {
            const int64_t at = (tokens.begin + i) * width + head * dim;
            step.kernels.gated_rms_norm(work.out + i * dim, in.gate + at, norm->weight, norm->eps, dim, in.out + at);
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

// Whether items of a run's k head keep the threads busy. Op by op is 1.25 times the work, shared by any number of
// threads, and some 20 us more in sections that few can share, as long as a head takes for 4 tokens. So 16 heads of a
// prompt go op by op with 7 threads (of three rounds the last is nearly empty), 11 to 15, and from 21 on. A decode step
// never does, however many threads it leaves idle: all of it is shorter than those sections.
bool balances(const Step& step, int64_t num_k) {
    const int64_t threads = step.pool.threads(), longest = longest_run(step);
    int64_t long_items = 0;  // these decide about rounds, shorter ones fill gaps
    for (const Run& run : step.batch.runs) long_items += 2 * run.num_tokens > longest ? num_k : 0;
    const double share = static_cast<double>(step.num_tokens() * num_k) / static_cast<double>(threads);
    const auto rounds = static_cast<double>((long_items + threads - 1) / threads * longest);
    return std::max(rounds, share) <= 1.25 * share + 4;
}

// inputs_of(run) -> RunInputs.
template <class F>
void advance_heads(const CausalConvOp& conv, const GatedDeltaOp& op, const GatedRmsNormOp* norm, Step& step,
                   F&& inputs_of) {
    const DeltaHeads& h = op.heads;
    const int64_t chunk = std::min(kChunk, longest_run(step)), size = Workspace::size(h, chunk);
    const int64_t widest = std::max(h.k_dim, h.v_dim);
    float *memory = step.scratch.get<float>(size * step.pool.threads()), *zeros = step.scratch.get<float>(widest);
    std::memset(zeros, 0, widest * sizeof(float));
    const auto num_runs = static_cast<int64_t>(step.batch.runs.size());
    step.pool.for_each(num_runs * h.num_k, [&](int64_t item, int thread) {
        const Run& run = step.batch.runs[item / h.num_k];
        const RunInputs in = inputs_of(run);
        const ConvRun columns = ConvRun::of(conv, step, run, in.qkv, in.ldqkv, zeros);
        const Workspace work(memory + thread * size, h, chunk);
        HeadOfRun{op, norm, step, run, in, columns, work}.k_head(item % h.num_k);
    });
}

}  // namespace

void run(const DeltaNetOp& op, Step& step) {
    const DeltaHeads& h = op.delta.heads;
    if (!balances(step, h.num_k)) {
        run(op.conv, step);
        run(op.delta, step);
        return run(op.norm, step);
    }
    const int64_t channels = h.channels(), width = h.num_v * h.v_dim;
    const float *qkv = step.value(op.conv.x), *a = step.value(op.delta.a), *b = step.value(op.delta.b);
    const float* gate = step.value(op.norm.gate);
    float* out = step.value(op.norm.out);
    advance_heads(op.conv, op.delta, &op.norm, step, [&](const Run& run) {
        const int64_t row = run.begin;
        return RunInputs{qkv + row * channels, a + row * h.num_v, b + row * h.num_v, channels, h.num_v,
                         gate + row * width,   out + row * width};
    });
}

// The accepted tokens once more, from the pending lanes.
void run(const ReplayOp& op, Step& step) {
    const DeltaHeads& h = op.delta.heads;
    const int64_t width = step.cache->pending_width();
    advance_heads(op.conv, op.delta, nullptr, step, [&](const Run& run) {
        const float* lane = step.cache->pending(op.delta.layer, run.slot, 0);
        return RunInputs{lane, lane + h.channels(), lane + h.channels() + h.num_v, width, width, nullptr, nullptr};
    });
}

}  // namespace qwick
