// The rule as an op of its own: the inputs of all rows first, then every tile of every state. More work than
// head_by_head.cpp, but any number of threads shares it.
#include "gated_delta/gated_delta.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "gated_delta/recurrence.h"

namespace qwick {
namespace {

struct Prepared {
    float *q, *k;     // [num_k, tokens, k_dim]: a head is read front to back
    float *g, *beta;  // [tokens, num_v]
};

Prepared prepare(const GatedDeltaOp& op, Step& step) {
    const DeltaHeads& h = op.heads;
    const int64_t tokens = step.num_tokens(), width = h.num_k * h.k_dim;
    const Prepared p{step.scratch.get<float>(tokens * width), step.scratch.get<float>(tokens * width),
                     step.scratch.get<float>(tokens * h.num_v), step.scratch.get<float>(tokens * h.num_v)};
    const float *qkv = step.value(op.qkv), *a = step.value(op.a), *b = step.value(op.b);
    const float scale = 1 / std::sqrt(static_cast<float>(h.k_dim));
    step.for_pieces(tokens, 4, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            const float* q = qkv + row * h.channels();
            for (int64_t head = 0; head < h.num_k; ++head) {
                const int64_t at = head * h.k_dim, to = (head * tokens + row) * h.k_dim;
                step.kernels.l2_norm(q + at, h.k_dim, scale, p.q + to);
                step.kernels.l2_norm(q + width + at, h.k_dim, 1, p.k + to);
            }
            for (int64_t j = 0, i = row * h.num_v; j < h.num_v; ++j, ++i) {
                const Gates gates = gates_of(op, j, a[i], b[i]);
                p.g[i] = gates.g;
                p.beta[i] = gates.beta;
            }
        }
    });
    return p;
}

// a and b of a draft; the convolution has put qkv before them.
void keep_pending(const GatedDeltaOp& op, Step& step) {
    const int64_t num_v = op.heads.num_v;
    for (const Run& run : step.batch.runs) {
        for (int64_t t = 0; !run.commit && t < run.num_tokens; ++t) {
            float* lane = step.cache->pending(op.layer, run.slot, t) + op.heads.channels();
            std::memcpy(lane, step.value(op.a) + (run.begin + t) * num_v, num_v * sizeof(float));
            std::memcpy(lane + num_v, step.value(op.b) + (run.begin + t) * num_v, num_v * sizeof(float));
        }
    }
}

}  // namespace

void run(const GatedDeltaOp& op, Step& step) {
    const DeltaHeads& h = op.heads;
    const Prepared p = prepare(op, step);
    const int64_t v_width = h.num_v * h.v_dim, tiles = (h.v_dim + kStateTile - 1) / kStateTile;
    const float* v = step.value(op.qkv) + 2 * h.num_k * h.k_dim;
    float* out = step.value(op.out);
    const int64_t tile_size = kStateTile * h.k_dim;
    float* scratch = step.scratch.get<float>(tile_size * step.pool.threads());
    const auto num_runs = static_cast<int64_t>(step.batch.runs.size());
    step.pool.for_each(num_runs * h.num_v * tiles, [&](int64_t item, int thread) {
        const Run& run = step.batch.runs[item / tiles / h.num_v];
        const int64_t first = item % tiles * kStateTile, head = item / tiles % h.num_v;
        const int64_t k_at = (head % h.num_k * step.num_tokens() + run.begin) * h.k_dim;
        const int64_t gate = run.begin * h.num_v + head;
        const HeadInputs in{
            p.q + k_at, p.k + k_at,    h.k_dim, v + run.begin * h.channels() + head * h.v_dim, h.channels(),
            p.g + gate, p.beta + gate, h.num_v, out + run.begin * v_width + head * h.v_dim,    v_width};
        const Tile tile{head, first, std::min(kStateTile, h.v_dim - first)};
        advance_tile(op, step, run, tile, {0, run.num_tokens}, in, scratch + thread * tile_size);
    });
    keep_pending(op, step);
}

}  // namespace qwick
