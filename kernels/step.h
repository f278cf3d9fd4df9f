// What every driver gets: one step's batch, and the means to compute it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "arena.h"
#include "batch.h"
#include "cache.h"
#include "kernels.h"
#include "thread_pool.h"

namespace qwick {

using BufferId = int32_t;  // a value of the program: [tokens, width] f32

// Memory that Python may still hold when the next step needs more: grown by replacement, freed by the last holder.
class ResultMemory {
  public:
    float* get(size_t count) {
        if (!mapping_ || mapping_->size() < count * sizeof(float)) {
            mapping_ = std::make_shared<Mapping>(checked_product(count, sizeof(float)));
        }
        return reinterpret_cast<float*>(mapping_->data());
    }
    const std::shared_ptr<Mapping>& owner() const { return mapping_; }
    size_t num_bytes() const { return mapping_ ? mapping_->size() : 0; }

  private:
    std::shared_ptr<Mapping> mapping_;
};

struct HeadResult {
    ResultMemory logits;  // [wanted, vocab]
    ResultMemory top;     // [wanted, top_k] ids (int32), then [wanted, top_k] logits, then [wanted] log-sum-exp
};

struct Step {
    const Kernels& kernels;
    ThreadPool& pool;
    Cache* cache;
    const Batch& batch;
    Scratch& scratch;
    HeadResult& head;
    std::vector<RowSpan>& head_spans;  // of the product under way; kept for its memory
    float* const* buffers;

    float* value(BufferId id) const { return buffers[id]; }
    int64_t num_tokens() const { return batch.num_tokens; }

    // f(begin, end, thread) over [0, count) in pieces of `piece`.
    template <class F>
    void for_pieces(int64_t count, int64_t piece, F&& f) {
        pool.for_each((count + piece - 1) / piece, [&](int64_t item, int thread) {
            const int64_t begin = item * piece;
            f(begin, begin + piece < count ? begin + piece : count, thread);
        });
    }
};

}  // namespace qwick
