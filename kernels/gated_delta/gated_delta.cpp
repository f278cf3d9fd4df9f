#include "gated_delta/gated_delta.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace qwick {
namespace {

struct Inputs {
    const float *qkv, *a, *b;  // [tokens, channels], [tokens, num_v] twice
    float* out;                // [tokens, num_v * v_dim]
};

// What a run's tokens look like to the recurrence, computed for all rows before it starts.
struct Prepared {
    float *q, *k;     // [tokens, num_k, k_dim], L2-normalised, q scaled by k_dim^-0.5
    float *g, *beta;  // [tokens, num_v]
};

// In double: the decay is raised to the power of the sequence's length.
float decay_factor(float decay, float x) {
    const double softplus = x > 20 ? x : std::log1p(std::exp(static_cast<double>(x)));
    return static_cast<float>(std::exp(decay * softplus));
}

float sigmoid(float x) {
    return static_cast<float>(1 / (1 + std::exp(-static_cast<double>(x))));
}

Prepared prepare(const GatedDeltaOp& op, Step& step, const Inputs& in) {
    const DeltaHeads& h = op.heads;
    const int64_t tokens = step.num_tokens(), width = h.num_k * h.k_dim;
    const Prepared p{step.scratch.get<float>(tokens * width), step.scratch.get<float>(tokens * width),
                     step.scratch.get<float>(tokens * h.num_v), step.scratch.get<float>(tokens * h.num_v)};
    const float scale = 1 / std::sqrt(static_cast<float>(h.k_dim));
    step.for_pieces(tokens, 4, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            const float* q = in.qkv + row * h.channels();
            for (int64_t at = 0; at < width; at += h.k_dim) {
                step.kernels.l2_norm(q + at, h.k_dim, scale, p.q + row * width + at);
                step.kernels.l2_norm(q + width + at, h.k_dim, 1, p.k + row * width + at);
            }
            for (int64_t j = 0, i = row * h.num_v; j < h.num_v; ++j, ++i) {
                p.g[i] = decay_factor(op.decay[j], in.a[i] + op.dt_bias[j]);
                p.beta[i] = sigmoid(in.b[i]);
            }
        }
    });
    return p;
}

// One tile of one head's state: lanes [first, first + width) of v.
struct Tile {
    int64_t head, first, width;
    int64_t offset(const DeltaHeads& h) const { return first * h.k_dim; }  // all tiles before it are full
    int64_t size(const DeltaHeads& h) const { return width * h.k_dim; }
};

struct Recurrence {
    const GatedDeltaOp& op;
    Step& step;
    const Inputs& in;
    const Prepared& p;

    float* state(int64_t slot, const Tile& tile) const {
        return step.cache->state(op.layer, slot, tile.head) + tile.offset(op.heads);
    }

    void advance(float* s, const Tile& tile, int64_t row, int64_t num_tokens) const {
        const DeltaHeads& h = op.heads;
        const int64_t k_width = h.num_k * h.k_dim, v_width = h.num_v * h.v_dim;
        const int64_t k_at = row * k_width + tile.head % h.num_k * h.k_dim;
        const int64_t lane = tile.head * h.v_dim + tile.first, gate = row * h.num_v + tile.head;
        const float* v = in.qkv + row * h.channels() + 2 * k_width + lane;
        step.kernels.delta_run(s, h.k_dim, tile.width, 0, tile.width, num_tokens, p.q + k_at, p.k + k_at, k_width, v,
                               h.channels(), p.g + gate, p.beta + gate, h.num_v, in.out + row * v_width + lane,
                               v_width);
    }

    // Snapshots cut the run; the recurrence does not notice, it is sequential.
    void run_tile(const Run& run, const Tile& tile, float* scratch) const {
        const size_t bytes = tile.size(op.heads) * sizeof(float);
        float* kept = state(run.slot, tile);
        float* s = run.commit ? kept : scratch;
        if (run.context_len == 0) {
            std::memset(s, 0, bytes);
        } else if (!run.commit) {
            std::memcpy(s, kept, bytes);
        }
        int64_t done = 0;
        for (int64_t i = 0; i < run.num_snapshots; ++i) {
            const Snapshot& snapshot = run.snapshots[i];
            if (snapshot.num_tokens > done) advance(s, tile, run.begin + done, snapshot.num_tokens - done);
            done = snapshot.num_tokens;
            std::memcpy(state(snapshot.slot, tile), s, bytes);
        }
        if (run.num_tokens > done) advance(s, tile, run.begin + done, run.num_tokens - done);
    }
};

// a and b of a draft; the convolution has put qkv before them.
void keep_pending(const GatedDeltaOp& op, Step& step, const Inputs& in) {
    const int64_t num_v = op.heads.num_v;
    for (const Run& run : step.batch.runs) {
        for (int64_t t = 0; !run.commit && t < run.num_tokens; ++t) {
            float* lane = step.cache->pending(op.layer, run.slot, t) + op.heads.channels();
            std::memcpy(lane, in.a + (run.begin + t) * num_v, num_v * sizeof(float));
            std::memcpy(lane + num_v, in.b + (run.begin + t) * num_v, num_v * sizeof(float));
        }
    }
}

void recur(const GatedDeltaOp& op, Step& step, const Inputs& in) {
    const DeltaHeads& h = op.heads;
    const Prepared prepared = prepare(op, step, in);
    const Recurrence recurrence{op, step, in, prepared};
    const int64_t tiles = (h.v_dim + kStateTile - 1) / kStateTile, tile_size = kStateTile * h.k_dim;
    float* scratch = step.scratch.get<float>(tile_size * step.pool.threads());
    const auto num_runs = static_cast<int64_t>(step.batch.runs.size());
    step.pool.for_each(num_runs * h.num_v * tiles, [&](int64_t item, int thread) {
        const int64_t first = item % tiles * kStateTile;
        const Tile tile{item / tiles % h.num_v, first, std::min(kStateTile, h.v_dim - first)};
        recurrence.run_tile(step.batch.runs[item / tiles / h.num_v], tile, scratch + thread * tile_size);
    });
}

}  // namespace

void run(const GatedDeltaOp& op, Step& step) {
    const Inputs in{step.value(op.qkv), step.value(op.a), step.value(op.b), step.value(op.out)};
    recur(op, step, in);
    keep_pending(op, step, in);
}

// The accepted tokens once more, from the pending lanes: the same code as a direct run, so the same bits.
void run(const ReplayOp& op, Step& step) {
    const DeltaHeads& h = op.delta.heads;
    const int64_t tokens = step.num_tokens(), channels = h.channels();
    float* qkv = step.scratch.get<float>(tokens * channels);
    float* a = step.scratch.get<float>(tokens * h.num_v);
    float* b = step.scratch.get<float>(tokens * h.num_v);
    for (const Run& run : step.batch.runs) {
        for (int64_t t = 0, row = run.begin; t < run.num_tokens; ++t, ++row) {
            const float* lane = step.cache->pending(op.delta.layer, run.slot, t);
            std::memcpy(qkv + row * channels, lane, channels * sizeof(float));
            std::memcpy(a + row * h.num_v, lane + channels, h.num_v * sizeof(float));
            std::memcpy(b + row * h.num_v, lane + channels + h.num_v, h.num_v * sizeof(float));
        }
    }
    float* convolved = step.scratch.get<float>(tokens * channels);
    convolve(op.conv, step, qkv, convolved);
    recur(op.delta, step, {convolved, a, b, step.scratch.get<float>(tokens * h.num_v * h.v_dim)});
}

}  // namespace qwick
