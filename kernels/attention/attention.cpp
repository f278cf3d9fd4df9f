#include "attention/attention.h"

#include <algorithm>
#include <cmath>

namespace qwick {
namespace {

constexpr int64_t kGroupTokens = 16;  // tokens of a prompt that share one pass over the keys

// The running softmax of some query rows: maximum, sum, weighted values.
struct Partial {
    float *m, *l, *acc;
    static int64_t size(int64_t rows, int64_t head_dim) { return rows * (2 + head_dim); }
    Partial(float* memory, int64_t rows) : m(memory), l(memory + rows), acc(memory + 2 * rows) {}
};

// Some consecutive tokens of one run against one kv head. A short run (a decode step, a verification) is cut by splits
// for the sake of parallelism; a longer one walks through its splits alone.
struct Task {
    const Run* run;
    int64_t first, count;  // tokens within the run
    int64_t head;
    int64_t split;    // -1: all of them
    float* partials;  // of a short run: one Partial per split
};

struct Attention {
    const AttentionOp& op;
    Step& step;
    const float *query, *query_gate;
    float* out;
    float* scratch;  // per thread
    int64_t scratch_len;

    int64_t head_dim() const { return op.heads.head_dim; }
    int64_t group() const { return op.heads.num_q / op.heads.num_kv; }
    int64_t last_position(const Task& task) const { return task.run->context_len + task.first + task.count - 1; }
    int64_t partial_size(const Task& task) const { return Partial::size(task.count * group(), head_dim()); }

    // Rows of a kv head's queries, token-major, times head_dim^-0.5.
    void gather(const Task& task, float* rows) const {
        const float scale = 1 / std::sqrt(static_cast<float>(head_dim()));
        for (int64_t t = 0; t < task.count; ++t) {
            const int64_t row = task.run->begin + task.first + t;
            const float* heads = query + (row * op.heads.num_q + task.head * group()) * head_dim();
            for (int64_t i = 0; i < group() * head_dim(); ++i) *rows++ = heads[i] * scale;
        }
    }

    void attend_split(const Task& task, int64_t split, const float* rows, int32_t* visible, Partial part) const {
        const int64_t num_rows = task.count * group();
        std::fill_n(part.m, num_rows, -INFINITY);
        std::fill_n(part.l, num_rows, 0.0f);
        std::fill_n(part.acc, num_rows * head_dim(), 0.0f);
        const int64_t begin = split * kSplitLen, end = std::min(begin + kSplitLen, last_position(task) + 1);
        for (int64_t key = begin; key < end; key += kBlockLen) attend_block(task, key, rows, visible, part);
    }

    void attend_block(const Task& task, int64_t key, const float* rows, int32_t* visible, Partial part) const {
        const int64_t position = task.run->context_len + task.first;
        const int64_t blind = std::max<int64_t>(0, key - position);  // leading tokens that see none of these keys
        for (int64_t t = blind; t < task.count; ++t) {
            const auto keys = static_cast<int32_t>(std::min(kBlockLen, position + t - key + 1));
            std::fill_n(visible + t * group(), group(), keys);
        }
        const Cache& cache = *step.cache;
        const int64_t page_len = cache.shape().page_len, page = task.run->pages[key / page_len];
        const int64_t offset = key % page_len * head_dim() * cache.kv_element_bytes(), r = blind * group();
        step.kernels.attend_block[static_cast<int>(cache.shape().kv_format)](
            rows + r * head_dim(), task.count * group() - r, head_dim(), cache.keys(op.layer, page, task.head) + offset,
            cache.values(op.layer, page, task.head) + offset, visible + r, part.m + r, part.l + r,
            part.acc + r * head_dim());
    }

    // Adds what a later split found; rows before its first key saw nothing of it.
    void merge(const Task& task, int64_t split, Partial into, Partial part) const {
        const int64_t blind = std::max<int64_t>(0, split * kSplitLen - task.run->context_len - task.first);
        for (int64_t r = blind * group(); r < task.count * group(); ++r) {
            const float m = std::max(into.m[r], part.m[r]);
            const float left = step.kernels.sum_exp(into.m + r, 1, m);  // exp(into.m - m), as this ISA computes it
            const float right = step.kernels.sum_exp(part.m + r, 1, m);
            into.m[r] = m;
            into.l[r] = into.l[r] * left + part.l[r] * right;
            float *a = into.acc + r * head_dim(), *b = part.acc + r * head_dim();
            for (int64_t d = 0; d < head_dim(); ++d) a[d] = a[d] * left + b[d] * right;
        }
    }

    void finish(const Task& task, Partial part) const {
        for (int64_t r = 0; r < task.count * group(); ++r) {
            const int64_t row = task.run->begin + task.first + r / group();
            const int64_t head = row * op.heads.num_q + task.head * group() + r % group();
            float* acc = part.acc + r * head_dim();
            const float inverse = 1 / part.l[r];
            for (int64_t d = 0; d < head_dim(); ++d) acc[d] *= inverse;
            step.kernels.sigmoid_mul(query_gate + (2 * head + 1) * head_dim(), acc, head_dim(),
                                     out + head * head_dim());
        }
    }

    void attend(const Task& task, int thread) const {
        const int64_t num_rows = task.count * group();
        float* rows = scratch + thread * scratch_len;
        float* memory = rows + num_rows * head_dim();
        auto* visible = reinterpret_cast<int32_t*>(memory + 2 * partial_size(task));
        gather(task, rows);
        if (task.split >= 0) {
            attend_split(task, task.split, rows, visible, {task.partials + task.split * partial_size(task), num_rows});
            return;
        }
        const Partial whole(memory, num_rows), part(memory + partial_size(task), num_rows);
        attend_split(task, 0, rows, visible, whole);
        for (int64_t split = 1; split * kSplitLen <= last_position(task); ++split) {
            attend_split(task, split, rows, visible, part);
            merge(task, split, whole, part);
        }
        finish(task, whole);
    }

    void join(const Task& task) const {  // task.split == 0 stands for all splits of its run and head
        const int64_t num_rows = task.count * group();
        const Partial whole(task.partials, num_rows);
        for (int64_t split = 1; split * kSplitLen <= last_position(task); ++split) {
            merge(task, split, whole, {task.partials + split * partial_size(task), num_rows});
        }
        finish(task, whole);
    }
};

bool is_short(const Run& run) {
    return run.num_tokens <= kMaxDraftLen;
}

int64_t num_splits(const Run& run) {
    return (int64_t{run.context_len} + run.num_tokens + kSplitLen - 1) / kSplitLen;
}

int64_t num_parts(const Run& run) {  // tasks per kv head
    return is_short(run) ? num_splits(run) : (run.num_tokens + kGroupTokens - 1) / kGroupTokens;
}

void store(const AttentionOp& op, Step& step) {
    const float *key = step.value(op.key), *value = step.value(op.value);
    const Cache& cache = *step.cache;
    const int64_t dim = op.heads.head_dim, page_len = cache.shape().page_len,
                  row_bytes = dim * cache.kv_element_bytes();
    const auto store_kv = step.kernels.store_kv[static_cast<int>(cache.shape().kv_format)];
    step.for_pieces(step.num_tokens(), 8, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            const Run& run = step.batch.runs[step.batch.run_of_row[row]];
            const int64_t position = run.context_len + row - run.begin, page = run.pages[position / page_len];
            const int64_t offset = position % page_len * row_bytes;
            for (int64_t head = 0; head < op.heads.num_kv; ++head) {
                const int64_t at = (row * op.heads.num_kv + head) * dim;
                store_kv(key + at, dim, cache.keys(op.layer, page, head) + offset);
                store_kv(value + at, dim, cache.values(op.layer, page, head) + offset);
            }
        }
    });
}

Task* add_tasks(const Run& run, const AttentionOp& op, Step& step, Task* task) {
    const int64_t group = op.heads.num_q / op.heads.num_kv, dim = op.heads.head_dim;
    for (int64_t head = 0; head < op.heads.num_kv; ++head) {
        if (is_short(run)) {
            const int64_t splits = num_splits(run), size = Partial::size(run.num_tokens * group, dim);
            float* partials = step.scratch.get<float>(splits * size);
            for (int64_t split = 0; split < splits; ++split) *task++ = {&run, 0, run.num_tokens, head, split, partials};
            continue;
        }
        for (int64_t first = 0; first < run.num_tokens; first += kGroupTokens) {
            *task++ = {&run, first, std::min<int64_t>(kGroupTokens, run.num_tokens - first), head, -1, nullptr};
        }
    }
    return task;
}

}  // namespace

void run(const AttentionOp& op, Step& step) {
    store(op, step);
    int64_t num_tasks = 0;
    for (const Run& run : step.batch.runs) num_tasks += num_parts(run) * op.heads.num_kv;
    Task* tasks = step.scratch.get<Task>(num_tasks);
    Task* end = tasks;
    for (const Run& run : step.batch.runs) end = add_tasks(run, op, step, end);
    const int64_t rows = kGroupTokens * (op.heads.num_q / op.heads.num_kv), dim = op.heads.head_dim;
    const int64_t scratch_len = rows * dim + 2 * Partial::size(rows, dim) + rows;
    const Attention attention{op,
                              step,
                              step.value(op.query),
                              step.value(op.query_gate),
                              step.value(op.out),
                              step.scratch.get<float>(scratch_len * step.pool.threads()),
                              scratch_len};
    step.pool.for_each(num_tasks, [&](int64_t item, int thread) { attention.attend(tasks[item], thread); });
    step.pool.for_each(num_tasks, [&](int64_t item, int) {
        if (tasks[item].split == 0) attention.join(tasks[item]);
    });
}

}  // namespace qwick
