#include "sample/head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "linear/linear.h"

namespace qwick {
namespace {

constexpr int64_t kBlock = 256;     // logits that share a bound: no one of them is larger
constexpr int64_t kChunk = 2048;    // logits per partial maximum and sum; part of the log-sum-exp's definition
constexpr int64_t kLogitRows = 64;  // in memory when only some of each row are asked for: 64 MB of 0.8B

int64_t num_blocks(int64_t n) {
    return (n + kBlock - 1) / kBlock;
}

struct Partial {  // of a chunk
    float max, sum;
};

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

// The k first candidates of a row, sorted. The blocks with the highest bounds are looked through until no other can
// hold a candidate: about k of them. `blocks` is working memory, [num_blocks(n)].
void select(const float* logits, int64_t n, const float* bounds, int32_t* blocks, int64_t k, Candidate* kept) {
    const auto lower = [bounds](int32_t a, int32_t b) { return bounds[a] < bounds[b]; };
    int32_t* last = blocks + num_blocks(n);
    std::iota(blocks, last, 0);
    std::make_heap(blocks, last, lower);
    int64_t found = 0;
    // An equal logit may have a lower id.
    while (last > blocks && !(found == k && bounds[blocks[0]] < ordered(kept[0].logit))) {
        const int64_t begin = blocks[0] * kBlock, end = std::min(n, begin + kBlock);
        std::pop_heap(blocks, last--, lower);
        for (int64_t i = begin; i < end; ++i) {
            const Candidate candidate{logits[i], static_cast<int32_t>(i)};
            if (found < k) {
                kept[found++] = candidate;
                std::push_heap(kept, kept + found, before);  // the worst one on top
            } else if (!(logits[i] < kept[0].logit) && before(candidate, kept[0])) {
                std::pop_heap(kept, kept + k, before);
                kept[k - 1] = candidate;
                std::push_heap(kept, kept + k, before);
            }
        }
    }
    std::sort_heap(kept, kept + k, before);
}

float log_sum_exp(const Kernels& kernels, const Partial* partials, int64_t chunks) {
    float max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < chunks; ++i) max = std::max(max, partials[i].max);
    for (int64_t i = 0; i < chunks; ++i) sum += partials[i].sum * kernels.sum_exp(&partials[i].max, 1, max);
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

// The bounds of every block; with `partials` also what the log-sum-exp needs. Of `count` rows.
void reduce(Step& step, const float* logits, int64_t count, int64_t n, float* bounds, Partial* partials) {
    const int64_t chunks = (n + kChunk - 1) / kChunk;
    step.pool.for_each(count * chunks, [&](int64_t item, int) {
        const int64_t row = item / chunks, begin = item % chunks * kChunk, end = std::min(n, begin + kChunk);
        const float* x = logits + row * n;
        float largest = -INFINITY;
        for (int64_t i = begin; i < end; i += kBlock) {
            const float bound = step.kernels.max_value(x + i, std::min(kBlock, end - i));
            bounds[row * num_blocks(n) + i / kBlock] = bound;
            largest = std::max(largest, bound);
        }
        if (partials) partials[item] = {largest, step.kernels.sum_exp(x + begin, end - begin, largest)};
    });
}

// The k largest logits, and the log-sum-exp if asked for, of wanted rows first .. first + count - 1, whose `logits` are
// [count, n].
void top(Step& step, float* logits, int64_t first, int64_t count, int64_t n) {
    const BatchArrays& in = step.batch.in;
    const int64_t k = in.top_k, wanted = in.num_wanted, blocks = num_blocks(n), chunks = (n + kChunk - 1) / kChunk;
    float* all_bounds = step.scratch.get<float>(count * blocks);
    Partial* partials = in.logsumexp ? step.scratch.get<Partial>(count * chunks) : nullptr;
    reduce(step, logits, count, n, all_bounds, partials);
    auto* ids = reinterpret_cast<int32_t*>(step.head.top.get(wanted * (2 * k + 1)));
    float* values = reinterpret_cast<float*>(ids) + wanted * k;
    // A place for each thread, or for each row where rows are fewer: k may be the vocabulary.
    const int64_t places = std::min<int64_t>(count, step.pool.threads());
    auto* order = step.scratch.get<int32_t>(places * blocks);
    auto* kept = step.scratch.get<Candidate>(places * k);
    step.pool.for_each(count, [&](int64_t i, int thread) {
        const int64_t row = first + i, place = places == count ? i : thread;
        float *x = logits + i * n, *bounds = all_bounds + i * blocks;
        Candidate* best = kept + place * k;
        if (partials) values[wanted * k + row] = log_sum_exp(step.kernels, partials + i * chunks, chunks);
        // A lowered logit leaves its block's maximum a bound.
        edit(in, row, x, [&](int32_t id, float logit) {
            if (logit > bounds[id / kBlock]) bounds[id / kBlock] = logit;
        });
        select(x, n, bounds, order + place * blocks, k, best);
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
    for (int64_t first = 0; first < in.num_wanted; first += kLogitRows) {
        step.scratch.reset();
        const int64_t count = std::min(in.num_wanted - first, kLogitRows);
        float* rows = step.scratch.get<float>(count * width);
        for (int64_t i = 0; i < count; ++i) {
            std::memcpy(rows + i * width, x + in.wanted_rows[first + i] * width, width * sizeof(float));
        }
        float* logits = all ? all + first * n : step.scratch.get<float>(count * n);
        const Product product{op.table, nullptr, nullptr, logits};
        step.head_spans.assign(1, {0, count, Role::decode});
        multiply(step, rows, width, step.head_spans, &product, 1);
        if (all) {
            step.pool.for_each(count, [&](int64_t i, int) { edit(in, first + i, logits + i * n, [](auto...) {}); });
        } else {
            top(step, logits, first, count, n);
        }
    }
}

}  // namespace qwick
