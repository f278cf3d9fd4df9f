// The recorded program: a list of ops and their buffers, replayed for each batch in one call.
#pragma once

#include <memory>
#include <vector>

#include "ops.h"
#include "runtime.h"

namespace qwick {

// One value of the program while it is recorded.
struct Value {
    int64_t width = 0;  // 0: not known yet (hidden states), or the head's result, which lies elsewhere
    int32_t last_use = -1;
    int32_t born = -1;  // index of the op that writes it
};

// What a recorder hands over.
struct Recording {
    std::vector<Op> ops;
    std::vector<Value> values;
    std::vector<std::shared_ptr<Tensor>> weights;  // kept alive
    BufferId hidden = -1;                          // the value returned as `hidden`, or -1
    bool has_head = false;
    Needs needs;
    // What the cache must look like; 0: not used.
    int64_t num_delta_layers = 0, num_attention_layers = 0, conv_kernel = 0, conv_channels = 0;
    DeltaHeads delta{};
    AttentionHeads attention{};
};

class Program {
  public:
    Program(std::shared_ptr<Runtime> runtime, Recording recording);
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    // Throw KernelError for what is malformed, and CapacityError for a batch that is too large, before anything is
    // written to the cache. CapacityError also when memory ends on the way: the slots of the batch's runs, and their
    // pages from the context on, then hold anything. One at a time per runtime (locked inside).
    void run(const BatchArrays& arrays);
    void commit(const int32_t* commits, int64_t count);

    const Recording& recording() const { return recording_; }
    const HeadResult& head() const { return head_; }
    const float* hidden() const { return recording_.hidden < 0 ? nullptr : buffers_[recording_.hidden]; }
    const std::shared_ptr<Mapping>& memory() const { return memory_; }
    size_t buffer_bytes() const { return memory_->size(); }
    // What the batches so far needed beside: working memory of the ops, and logits.
    size_t scratch_bytes() const { return scratch_.num_bytes() + head_.logits.num_bytes() + head_.top.num_bytes(); }
    // Of the last run.
    double replay_seconds() const { return replay_seconds_; }
    uint64_t num_allocations() const { return num_allocations_; }  // 0 once a batch as large was seen
    uint64_t num_sections() const { return num_sections_; }        // parallel sections, each with a barrier
    // From the next run on, the clock is read after every op; empty while that is off.
    void time_ops(bool on) { op_seconds_.assign(on ? recording_.ops.size() : 0, 0.0); }
    const std::vector<double>& op_seconds() const { return op_seconds_; }  // of the last run, by op

  private:
    void place_buffers();
    void check_cache() const;
    template <class F>
    void step(F&& assign);
    void replay();

    std::shared_ptr<Runtime> runtime_;
    Recording recording_;
    std::shared_ptr<Mapping> memory_;
    std::vector<float*> buffers_;  // by BufferId
    Batch batch_;
    Scratch scratch_;
    HeadResult head_;
    std::vector<RowSpan> head_spans_;
    double replay_seconds_ = 0;
    uint64_t num_allocations_ = 0, num_sections_ = 0;
    std::vector<double> op_seconds_;
};

}  // namespace qwick
