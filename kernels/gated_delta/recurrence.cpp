#include "gated_delta/recurrence.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace qwick {
namespace {

// In double: the decay is raised to the power of the sequence's length.
float decay_factor(float decay, float x) {
    const double softplus = x > 20 ? x : std::log1p(std::exp(static_cast<double>(x)));
    return static_cast<float>(std::exp(decay * softplus));
}

float sigmoid(float x) {
    return static_cast<float>(1 / (1 + std::exp(-static_cast<double>(x))));
}

}  // namespace

Gates gates_of(const GatedDeltaOp& op, int64_t j, float a, float b) {
    return {decay_factor(op.decay[j], a + op.dt_bias[j]), sigmoid(b)};
}

// Snapshots cut the run; the recurrence does not notice, it is sequential.
void advance_tile(const GatedDeltaOp& op, Step& step, const Run& run, const Tile& tile, const Tokens& tokens,
                  const HeadInputs& in, float* scratch) {
    const int64_t k_dim = op.heads.k_dim, lane = tile.first;
    const size_t bytes = tile.width * k_dim * sizeof(float);
    const auto state = [&](int64_t slot) {  // all tiles before this one are full
        return step.cache->state(op.layer, slot, tile.head) + lane * k_dim;
    };
    const auto advance = [&](float* s, int64_t t, int64_t count) {
        step.kernels.delta_run(s, k_dim, tile.width, 0, tile.width, count, in.q + t * in.ldqk, in.k + t * in.ldqk,
                               in.ldqk, in.v + t * in.ldv + lane, in.ldv, in.g + t * in.ldg, in.beta + t * in.ldg,
                               in.ldg, in.out + t * in.ldo + lane, in.ldo);
    };
    float* kept = state(run.slot);
    float* s = run.commit ? kept : scratch;
    if (run.context_len == 0 && tokens.begin == 0) {
        std::memset(s, 0, bytes);
    } else if (!run.commit) {
        std::memcpy(s, kept, bytes);
    }
    int64_t done = tokens.begin;
    for (int64_t i = 0; i < run.num_snapshots; ++i) {
        const Snapshot& snapshot = run.snapshots[i];
        if (snapshot.num_tokens <= tokens.begin || snapshot.num_tokens > tokens.end) continue;
        if (snapshot.num_tokens > done) advance(s, done - tokens.begin, snapshot.num_tokens - done);
        done = snapshot.num_tokens;
        std::memcpy(state(snapshot.slot), s, bytes);
    }
    if (tokens.end > done) advance(s, done - tokens.begin, tokens.end - done);
}

int64_t longest_run(const Step& step) {
    int64_t longest = 0;
    for (const Run& run : step.batch.runs) longest = std::max<int64_t>(longest, run.num_tokens);
    return longest;
}

}  // namespace qwick
