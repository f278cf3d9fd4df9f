#include "batch.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "errors.h"

namespace qwick {
namespace {

void require(bool holds, const char* complaint) {
    if (!holds) throw KernelError(std::string("malformed batch: ") + complaint);
}

void extend(std::vector<RowSpan>& spans, int64_t begin, int64_t end, Role role) {
    if (!spans.empty() && spans.back().role == role && spans.back().end == begin) {
        spans.back().end = end;
    } else {
        spans.push_back({begin, end, role});
    }
}

const CacheShape& opened(const CacheShape* cache) {
    if (!cache) throw KernelError("a program ran before a cache was opened");
    return *cache;
}

}  // namespace

void Batch::assign(const BatchArrays& arrays, const Needs& needs, const CacheShape* cache) {
    require(!needs.commits, "this program takes commits");
    in = arrays;
    num_tokens = 0;
    spans.clear();
    runs.clear();
    run_of_row.clear();
    snapshots_.assign(reinterpret_cast<const Snapshot*>(in.snapshots),
                      reinterpret_cast<const Snapshot*>(in.snapshots) + in.num_snapshots);
    check_tokens(needs);
    int64_t pages = 0, snapshots = 0;
    for (int64_t i = 0; i < in.num_runs; ++i) {
        const int32_t* f = in.runs + i * kRunFields;
        require(f[1] == 0 || f[1] == 1, "a role is neither decode nor prompt");
        require(f[5] >= 0 && f[5] <= in.num_pages - pages, "fewer pages than the runs say");
        require(f[6] >= 0 && f[6] <= in.num_snapshots - snapshots, "fewer snapshots than the runs say");
        Run run{num_tokens,       f[0], static_cast<Role>(f[1]),       f[2], f[3], f[4] != 0,
                in.pages + pages, f[5], snapshots_.data() + snapshots, f[6]};
        check_run(run, needs, cache);
        std::sort(snapshots_.begin() + snapshots, snapshots_.begin() + snapshots + f[6],
                  [](const Snapshot& a, const Snapshot& b) { return a.num_tokens < b.num_tokens; });
        add_run(run);
        pages += f[5];
        snapshots += f[6];
    }
    require(num_tokens == in.num_tokens, "the runs' tokens are not the batch's tokens");
    require(pages == in.num_pages && snapshots == in.num_snapshots, "more pages or snapshots than the runs say");
    if (needs.slots) check_slots(opened(cache));
    add_wanted(needs);
    if (in.edit_starts) check_edits(needs);
}

void Batch::add_run(Run run) {
    const int64_t end = num_tokens + run.num_tokens;
    extend(spans, num_tokens, end, run.role);
    run_of_row.insert(run_of_row.end(), run.num_tokens, static_cast<int32_t>(runs.size()));
    runs.push_back(run);
    num_tokens = end;
}

void Batch::check_tokens(const Needs& needs) const {
    require(in.num_tokens > 0 && in.num_runs > 0, "it has no tokens");
    if (in.num_tokens > needs.max_tokens) {
        throw CapacityError("a batch of " + std::to_string(in.num_tokens) + " tokens; the program was compiled for " +
                            std::to_string(needs.max_tokens));
    }
    for (int64_t i = 0; needs.vocab > 0 && i < in.num_tokens; ++i) {
        require(in.token_ids[i] >= 0 && in.token_ids[i] < needs.vocab, "a token id is not in the vocabulary");
    }
    require(needs.rope_half == 0 || in.rope_half == needs.rope_half, "the rope angles have the wrong width");
    require(!needs.hidden_width || in.hidden, "this program needs hidden states");
    require(needs.hidden_width || !in.hidden, "this program takes no hidden states");
    require(in.hidden_width == needs.hidden_width, "the hidden states have the wrong width");
}

void Batch::check_run(const Run& run, const Needs& needs, const CacheShape* cache) const {
    require(run.num_tokens > 0, "a run has no tokens");
    require(run.num_tokens <= in.num_tokens - run.begin, "the runs have more tokens than the batch");
    require(run.context_len >= 0, "a run has a negative context");
    require(run.commit || run.num_tokens <= kMaxDraftLen, "a draft to verify is longer than 8 tokens");
    for (int64_t i = 0; i < run.num_snapshots; ++i) {
        const Snapshot& s = run.snapshots[i];
        require(s.num_tokens >= 1 && s.num_tokens <= run.num_tokens, "a snapshot lies outside its run");
    }
    if (!needs.pages) return;
    const int64_t last = int64_t{run.context_len} + run.num_tokens;
    require(run.num_pages * opened(cache).page_len >= last, "a run's pages do not hold its tokens");
    for (int64_t i = 0; i < run.num_pages; ++i) {
        require(run.pages[i] >= 0 && run.pages[i] < cache->num_pages, "a page does not exist");
    }
}

// Runs are computed in parallel: two of them must not meet in a slot.
void Batch::check_slots(const CacheShape& cache) {
    slots_written_.clear();
    for (const Run& run : runs) {
        slots_written_.push_back(run.slot);
        for (int64_t i = 0; i < run.num_snapshots; ++i) slots_written_.push_back(run.snapshots[i].slot);
    }
    std::sort(slots_written_.begin(), slots_written_.end());
    require(slots_written_.empty() || (slots_written_.front() >= 0 && slots_written_.back() < cache.num_slots),
            "a slot does not exist");
    require(std::adjacent_find(slots_written_.begin(), slots_written_.end()) == slots_written_.end(),
            "a slot is used twice");
}

void Batch::add_wanted(const Needs& needs) {
    require(in.num_wanted == 0 || needs.head_rows > 0, "this program has no head, so no rows can be wanted");
    require(in.top_k >= 0 && (in.top_k <= needs.head_rows || !needs.head_rows), "top_k exceeds the vocabulary");
    for (int64_t i = 0; i < in.num_wanted; ++i) {
        const int32_t row = in.wanted_rows[i];
        require(row >= 0 && row < num_tokens, "a wanted row does not exist");
        require(i == 0 || row > in.wanted_rows[i - 1], "wanted rows must ascend");
    }
}

void Batch::check_edits(const Needs& needs) {
    const int32_t* starts = in.edit_starts;
    require(starts[0] == 0 && starts[in.num_wanted] == in.num_edits, "the edits' rows do not hold all edits");
    for (int64_t i = 0; i < in.num_wanted; ++i) require(starts[i] <= starts[i + 1], "the edits' rows must ascend");
    edited_.resize(needs.head_rows);
    for (int64_t row = 0; row < in.num_wanted; ++row) {
        if (starts[row] == starts[row + 1]) continue;
        std::fill(edited_.begin(), edited_.end(), false);
        for (int32_t i = starts[row]; i < starts[row + 1]; ++i) check_edit(needs, i);
    }
}

void Batch::check_edit(const Needs& needs, int64_t i) {
    const int32_t id = in.edit_ids[i];
    const float *v = in.edit_values + i * kEditFields, bias = v[0], repetition = v[1], offset = v[2];
    require(id >= 0 && id < needs.head_rows, "an edited id is not in the vocabulary");
    require(!edited_[id], "a row edits a logit twice");
    edited_[id] = true;
    require(std::isfinite(bias) || bias == -INFINITY, "a bias is neither finite nor minus infinity");
    require(std::isfinite(repetition) && repetition > 0, "a repetition penalty is not above 0");
    require(std::isfinite(offset), "an offset is not finite");
}

void Batch::assign_commits(const int32_t* commits, int64_t count, const Needs& needs, const CacheShape* cache) {
    require(needs.commits, "this program takes a batch of tokens");
    in = {};
    num_tokens = 0;
    spans.clear();
    runs.clear();
    run_of_row.clear();
    for (int64_t i = 0; i < count; ++i) {
        const int32_t* f = commits + i * kCommitFields;
        require(f[1] >= 0 && f[1] <= kMaxDraftLen, "a commit has more tokens than the pending lane");
        require(f[2] >= 0, "a commit has a negative context");
        if (f[1] > 0) add_run({num_tokens, f[1], Role::decode, f[2], f[0], true, nullptr, 0, nullptr, 0});
    }
    check_slots(opened(cache));
}

}  // namespace qwick
