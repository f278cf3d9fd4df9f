// One step's input as the drivers see it: checked, and cut into runs and spans of one role.
#pragma once

#include <cstdint>
#include <vector>

#include "cache.h"

namespace qwick {

enum class Role : int32_t { decode = 0, prompt = 1 };

struct Snapshot {
    int32_t num_tokens, slot;
};

struct Run {        // fields as in ops/contract.py
    int64_t begin;  // first row
    int32_t num_tokens;
    Role role;
    int32_t context_len, slot;
    bool commit;
    const int32_t* pages;
    int64_t num_pages;
    const Snapshot* snapshots;  // ascending num_tokens
    int64_t num_snapshots;
};

struct RowSpan {  // consecutive rows of one role
    int64_t begin, end;
    Role role;
};

// What crosses from Python, flat. `runs` has kRunFields columns; pages and snapshots (pairs) of all runs lie end to
// end.
constexpr int64_t kRunFields = 7;  // num_tokens, role, context_len, slot, commit, num_pages, num_snapshots
struct BatchArrays {
    const int32_t* token_ids;
    int64_t num_tokens;
    const float *rope_cos, *rope_sin;
    int64_t rope_half;
    const float* hidden;  // or null
    int64_t hidden_width;
    const int32_t* runs;
    int64_t num_runs;
    const int32_t* pages;
    int64_t num_pages;
    const int32_t* snapshots;
    int64_t num_snapshots;
    const int32_t* wanted_rows;
    int64_t num_wanted;
    int64_t top_k;
    bool logsumexp;              // also asked for; with a top-k only
    const int32_t* edit_starts;  // [num_wanted + 1], or null: no edits
    const int32_t* edit_ids;
    const float* edit_values;  // [num_edits, kEditFields]
    int64_t num_edits;
};

constexpr int64_t kEditFields = 3;    // bias, repetition, offset
constexpr int64_t kCommitFields = 3;  // slot, num_tokens, context_len

// What a program needs of a batch; 0 or false: does not read it.
struct Needs {
    int64_t max_tokens = 0;
    int64_t vocab = 0, rope_half = 0, hidden_width = 0, head_rows = 0;
    bool slots = false, pages = false, commits = false;
};

struct Batch {
    BatchArrays in{};
    int64_t num_tokens = 0;
    std::vector<Run> runs;
    std::vector<RowSpan> spans;
    std::vector<int32_t> run_of_row;

    // Both throw KernelError for anything malformed, CapacityError for more rows than the program was compiled for. The
    // arrays must outlive the batch's use. Vectors keep their memory from step to step.
    void assign(const BatchArrays& arrays, const Needs& needs, const CacheShape* cache);
    void assign_commits(const int32_t* commits, int64_t count, const Needs& needs, const CacheShape* cache);

  private:
    void add_run(Run run);
    void check_tokens(const Needs& needs) const;
    void check_run(const Run& run, const Needs& needs, const CacheShape* cache) const;
    void check_slots(const CacheShape& cache);
    void add_wanted(const Needs& needs);
    void check_edits(const Needs& needs);
    void check_edit(const Needs& needs, int64_t i);

    std::vector<Snapshot> snapshots_;
    std::vector<int32_t> slots_written_;
    std::vector<bool> edited_;  // [vocab], ids of one row
};

}  // namespace qwick
