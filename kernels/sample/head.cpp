#include "sample/head.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "linear/linear.h"

namespace qwick {
namespace {

constexpr int64_t kChunk = 2048;       // logits per partial maximum and sum; part of the log-sum-exp's definition
constexpr int64_t kRowsTogether = 64;  // of logits in memory when only some of each row are asked for: 64 MB of 0.8B

struct Candidate {
    float logit;
    int32_t id;
};

float ordered(float logit) {
    return std::isnan(logit) ? -INFINITY : logit;
}

// Larger logit first, then lower id.
bool before(const Candidate& a, const Candidate& b) {
    const float x = ordered(a.logit), y = ordered(b.logit);
    return x != y ? x > y : a.id < b.id;
}

// The k first candidates of a row, sorted. A chunk whose bound (no logit of it is larger) does not beat the worst kept
// one is skipped: ids ascend, so an equal logit loses.
void select(const float* logits, int64_t n, const float* chunk_bound, int64_t k, Candidate* kept) {
    for (int64_t i = 0; i < k; ++i) kept[i] = {logits[i], static_cast<int32_t>(i)};
    std::make_heap(kept, kept + k, before);  // the worst one on top
    for (int64_t chunk = k / kChunk; chunk * kChunk < n; ++chunk) {
        if (chunk_bound[chunk] <= ordered(kept[0].logit)) continue;
        const int64_t end = std::min(n, (chunk + 1) * kChunk);
        for (int64_t i = std::max(k, chunk * kChunk); i < end; ++i) {
            if (!(logits[i] > ordered(kept[0].logit))) continue;
            std::pop_heap(kept, kept + k, before);
            kept[k - 1] = {logits[i], static_cast<int32_t>(i)};
            std::push_heap(kept, kept + k, before);
        }
    }
    std::sort_heap(kept, kept + k, before);
}

float log_sum_exp(const Kernels& kernels, const float* chunk_max, const float* chunk_sum, int64_t chunks) {
    const float max = *std::max_element(chunk_max, chunk_max + chunks);
    float sum = 0;
    for (int64_t i = 0; i < chunks; ++i) sum += chunk_sum[i] * kernels.sum_exp(chunk_max + i, 1, max);
    return max + static_cast<float>(std::log(static_cast<double>(sum)));
}

// Changes the logits that the batch's edits name; f(id, logit) sees each afterwards.
template <class F>
void edit(const BatchArrays& in, int64_t row, float* logits, F&& f) {
    if (!in.edit_starts) return;
    for (int32_t i = in.edit_starts[row]; i < in.edit_starts[row + 1]; ++i) {
        const float *v = in.edit_values + i * kEditFields, repetition = v[1];
        float& logit = logits[in.edit_ids[i]];
        logit += v[0];
        logit = logit > 0 ? logit / repetition : logit * repetition;
        logit += v[2];
        f(in.edit_ids[i], logit);
    }
}

// The k largest logits and the log-sum-exp of wanted rows first .. first + count - 1, whose `logits` are [count, n].
void top(Step& step, float* logits, int64_t first, int64_t count, int64_t n) {
    const int64_t k = step.batch.in.top_k, wanted = step.batch.in.num_wanted, chunks = (n + kChunk - 1) / kChunk;
    float* maxima = step.scratch.get<float>(count * chunks);
    float* sums = step.scratch.get<float>(count * chunks);
    step.pool.for_each(count * chunks, [&](int64_t item, int) {
        const int64_t begin = item % chunks * kChunk, len = std::min(kChunk, n - begin);
        const float* x = logits + item / chunks * n + begin;
        maxima[item] = step.kernels.max_value(x, len);
        sums[item] = step.kernels.sum_exp(x, len, maxima[item]);
    });
    auto* ids = reinterpret_cast<int32_t*>(step.head.top.get(wanted * (2 * k + 1)));
    float* values = reinterpret_cast<float*>(ids) + wanted * k;
    auto* kept = step.scratch.get<Candidate>(count * k);
    step.pool.for_each(count, [&](int64_t i, int) {
        const int64_t row = first + i;
        float *x = logits + i * n, *bounds = maxima + i * chunks;
        Candidate* best = kept + i * k;
        values[wanted * k + row] = log_sum_exp(step.kernels, bounds, sums + i * chunks, chunks);
        // A lowered logit leaves its chunk's maximum a bound.
        edit(step.batch.in, row, x, [&](int32_t id, float logit) {
            if (logit > bounds[id / kChunk]) bounds[id / kChunk] = logit;
        });
        select(x, n, bounds, k, best);
        for (int64_t j = 0; j < k; ++j) {
            ids[row * k + j] = best[j].id;
            values[row * k + j] = best[j].logit;
        }
    });
}

}  // namespace

void run(const HeadOp& op, Step& step) {
    const auto& in = step.batch.in;
    const int64_t width = op.table.cols, n = op.table.rows;
    const float* x = step.value(op.x);
    float* all = in.top_k > 0 ? nullptr : step.head.logits.get(in.num_wanted * n);
    for (int64_t first = 0; first < in.num_wanted; first += kRowsTogether) {
        step.scratch.reset();
        const int64_t count = std::min(in.num_wanted - first, kRowsTogether);
        float* rows = step.scratch.get<float>(count * width);
        for (int64_t i = 0; i < count; ++i) {
            std::memcpy(rows + i * width, x + in.wanted_rows[first + i] * width, width * sizeof(float));
        }
        float* logits = all ? all + first * n : step.scratch.get<float>(count * n);
        const Product product{op.table, nullptr, nullptr, logits};
        multiply(step, rows, width, {{0, count, Role::decode}}, &product, 1);
        if (all) {
            step.pool.for_each(count, [&](int64_t i, int) { edit(in, first + i, logits + i * n, [](auto...) {}); });
        } else {
            top(step, logits, first, count, n);
        }
    }
}

}  // namespace qwick
