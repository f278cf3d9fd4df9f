#include "attention/attention.h"

#include <algorithm>
#include <cmath>

namespace qwick {
namespace {

// Tokens of a prompt that share one pass over the keys: with four query heads each, whole tiles of rows that fit the
// second cache with their queries and outputs. Fewer where threads would wait for the last ones.
constexpr int64_t kGroupTokens = 24, kTileGroupTokens = 48, kLeastGroupTokens = 4;
constexpr int64_t kShares = 4;  // a task takes this part of what is left for a thread: long ones first, short ones last

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
    int64_t split, end;  // splits [split, end)
    float* partials;     // one Partial per split; null: all splits are this task's
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

    // By role, never by the number of rows.
    bool has_prompt_leaves(const Task& task) const {
        return task.run->role == Role::prompt && head_dim() % kKvGroup == 0 && head_dim() <= kMostPromptDims;
    }

    // Rows of a kv head's queries, token-major, times head_dim^-0.5.
    void gather(const Task& task, float* rows) const {
        const float scale = 1 / std::sqrt(static_cast<float>(head_dim()));
        const auto& load_of = has_prompt_leaves(task) ? step.kernels.load_prompt_query : step.kernels.load_query;
        const auto load_query = load_of[static_cast<int>(step.cache->shape().kv_format)];
        for (int64_t i = 0; i < task.count * group(); ++i) {
            const int64_t row = task.run->begin + task.first + i / group();
            const int64_t head = row * op.heads.num_q + task.head * group() + i % group();
            load_query(query + head * head_dim(), head_dim(), scale, rows + i * head_dim());
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

    KvBlock block_at(const Task& task, int64_t key) const {
        const int64_t page_len = step.cache->shape().page_len, next = key + kBlockLen;
        const auto block = [&](int64_t at) {
            return step.cache->kv_block(op.layer, task.run->pages[at / page_len], task.head, at % page_len);
        };
        return {block(key), next <= std::min(last_position(task), task.end * kSplitLen - 1) ? block(next) : nullptr};
    }

    void attend_block(const Task& task, int64_t key, const float* rows, int32_t* visible, Partial part) const {
        const int64_t position = task.run->context_len + task.first;
        const int64_t blind = std::max<int64_t>(0, key - position);  // leading tokens that see none of these keys
        for (int64_t t = blind; t < task.count; ++t) {
            const auto keys = static_cast<int32_t>(std::min(kBlockLen, position + t - key + 1));
            std::fill_n(visible + t * group(), group(), keys);
        }
        const int64_t r = blind * group();
        const auto& attend_of = has_prompt_leaves(task) ? step.kernels.attend_prompt : step.kernels.attend_block;
        attend_of[static_cast<int>(step.cache->shape().kv_format)](
            {task.count * group() - r, head_dim(), rows + r * head_dim(), visible + r, part.m + r, part.l + r,
             part.acc + r * head_dim()},
            block_at(task, key));
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
        if (task.partials != nullptr) {
            for (int64_t split = task.split; split < task.end; ++split) {
                attend_split(task, split, rows, visible, {task.partials + split * partial_size(task), num_rows});
            }
            return;
        }
        // One split of a short run needs no joining either.
        const Partial whole(memory, num_rows), part(memory + partial_size(task), num_rows);
        attend_split(task, 0, rows, visible, whole);
        for (int64_t split = 1; split < task.end; ++split) {
            attend_split(task, split, rows, visible, part);
            merge(task, split, whole, part);
        }
        finish(task, whole);
    }

    void join(const Task& task) const {
        const int64_t num_rows = task.count * group();
        const Partial whole(task.partials, num_rows);
        for (int64_t split = 1; split * kSplitLen <= last_position(task); ++split) {
            merge(task, split, whole, {task.partials + split * partial_size(task), num_rows});
        }
        finish(task, whole);
    }
};

// Tiles are made of each block first, which has to pay; a CPU that has them has 2 MiB of second cache.
int64_t most_tokens(const Step& step) {
    const auto format = static_cast<int>(step.cache->shape().kv_format);
    return step.kernels.attend_prompt[format] == step.kernels.attend_block[format] ? kGroupTokens : kTileGroupTokens;
}

bool is_short(const Run& run) {
    return run.num_tokens <= kMaxDraftLen;
}

int64_t num_splits(const Run& run, int64_t num_tokens) {  // that the run's first num_tokens tokens see
    return (int64_t{run.context_len} + num_tokens + kSplitLen - 1) / kSplitLen;
}

void store(const AttentionOp& op, Step& step) {
    const float *key = step.value(op.key), *value = step.value(op.value);
    const Cache& cache = *step.cache;
    const int64_t dim = op.heads.head_dim, page_len = cache.shape().page_len;
    const int format = static_cast<int>(cache.shape().kv_format);
    step.for_pieces(step.num_tokens(), kTileKeys, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            const Run& run = step.batch.runs[step.batch.run_of_row[row]];
            const int64_t position = run.context_len + row - run.begin, page = run.pages[position / page_len];
            const int64_t offset = position % page_len, place = offset % kBlockLen;
            for (int64_t head = 0; head < op.heads.num_kv; ++head) {
                const int64_t at = (row * op.heads.num_kv + head) * dim;
                std::byte* block = cache.kv_block(op.layer, page, head, offset);
                step.kernels.store_key[format](key + at, dim, place, block);
                step.kernels.store_value[format](value + at, dim, place, block + cache.value_offset());
            }
        }
    });
}

// The tasks of a step, and which of them stand for a run and head whose splits have to be joined.
struct Tasks {
    Task *tasks, *joins;
    int64_t num_tasks = 0, num_joins = 0;
    int64_t splits_left = 0;  // of short runs, not yet in a task
    int64_t num_threads;
    int64_t group_tokens;

    Tasks(const AttentionOp& op, Step& step) : num_threads(step.pool.threads()) {
        int64_t most = 0, long_tokens = 0;
        for (const Run& run : step.batch.runs) long_tokens += is_short(run) ? 0 : run.num_tokens;
        group_tokens =
            std::clamp(long_tokens * op.heads.num_kv / (kShares * num_threads), kLeastGroupTokens, most_tokens(step));
        for (const Run& run : step.batch.runs) {
            const int64_t parts = num_splits(run, run.num_tokens) * op.heads.num_kv;
            if (is_short(run)) splits_left += parts;
            most += is_short(run) ? parts : (run.num_tokens + group_tokens - 1) / group_tokens * op.heads.num_kv;
        }
        tasks = step.scratch.get<Task>(most);
        joins = step.scratch.get<Task>(step.batch.runs.size() * op.heads.num_kv);
        for (const Run& run : step.batch.runs) {
            for (int64_t head = 0; head < op.heads.num_kv; ++head) {
                if (is_short(run)) {
                    add_splits(run, head, op.heads, step);
                } else {
                    add_groups(run, head);
                }
            }
        }
    }

    void add_splits(const Run& run, int64_t head, const AttentionHeads& heads, Step& step) {
        const int64_t splits = num_splits(run, run.num_tokens);
        Task task{&run, 0, run.num_tokens, head, 0, splits, nullptr};
        if (splits > 1) {
            const int64_t size = Partial::size(run.num_tokens * (heads.num_q / heads.num_kv), heads.head_dim);
            task.partials = step.scratch.get<float>(splits * size);
            joins[num_joins++] = task;
        }
        while (task.split < splits) {
            const int64_t share = std::max<int64_t>(1, splits_left / (kShares * num_threads));
            task.end = std::min(splits, task.split + share);
            splits_left -= task.end - task.split;
            tasks[num_tasks++] = task;
            task.split = task.end;
        }
    }

    void add_groups(const Run& run, int64_t head) {  // the last tokens see most and come first
        for (int64_t first = (run.num_tokens - 1) / group_tokens * group_tokens; first >= 0; first -= group_tokens) {
            const int64_t count = std::min<int64_t>(group_tokens, run.num_tokens - first);
            tasks[num_tasks++] = {&run, first, count, head, 0, num_splits(run, first + count), nullptr};
        }
    }
};

}  // namespace

void run(const AttentionOp& op, Step& step) {
    store(op, step);
    const Tasks work(op, step);
    const int64_t rows = most_tokens(step) * (op.heads.num_q / op.heads.num_kv), dim = op.heads.head_dim;
    const int64_t scratch_len = rows * dim + 2 * Partial::size(rows, dim) + rows;
    const Attention attention{op,
                              step,
                              step.value(op.query),
                              step.value(op.query_gate),
                              step.value(op.out),
                              step.scratch.get<float>(scratch_len * step.pool.threads()),
                              scratch_len};
    step.pool.for_each(work.num_tasks, [&](int64_t item, int thread) { attention.attend(work.tasks[item], thread); });
    step.pool.for_each(work.num_joins, [&](int64_t item, int) { attention.join(work.joins[item]); });
}

}  // namespace qwick
