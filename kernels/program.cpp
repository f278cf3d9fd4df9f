#include "program.h"

#include <algorithm>
#include <chrono>

#include "allocations.h"
#include "errors.h"

namespace qwick {
namespace {

// Memory that values with disjoint lives take turns in.
struct Slab {
    int64_t width;
    int32_t free_from;  // first op that may write it anew
};

// The free slab that fits best: the narrowest wide enough, else the widest, which grows.
size_t choose_slab(const std::vector<Slab>& slabs, const Value& value) {
    size_t best = slabs.size();
    for (size_t i = 0; i < slabs.size(); ++i) {
        if (slabs[i].free_from > value.born) continue;
        if (best == slabs.size()) {
            best = i;
            continue;
        }
        const int64_t a = slabs[i].width, b = slabs[best].width;
        if (b < value.width ? a > b : a >= value.width && a < b) best = i;
    }
    return best;
}

}  // namespace

Program::Program(std::shared_ptr<Runtime> runtime, Recording recording)
    : runtime_(std::move(runtime)), recording_(std::move(recording)) {
    place_buffers();
}

// The hidden result has a slab to itself: a draft's own output may be its next input, read while others are written.
void Program::place_buffers() {
    std::vector<Slab> slabs;
    std::vector<size_t> slab_of(recording_.values.size());
    for (size_t id = 0; id < recording_.values.size(); ++id) {
        const Value& value = recording_.values[id];
        const bool pinned = static_cast<BufferId>(id) == recording_.hidden;
        const size_t slab = pinned ? slabs.size() : choose_slab(slabs, value);
        if (slab == slabs.size()) slabs.push_back({0, 0});
        slabs[slab].width = std::max(slabs[slab].width, value.width);
        slabs[slab].free_from = pinned ? INT32_MAX : std::max(value.last_use, value.born) + 1;
        slab_of[id] = slab;
    }
    std::vector<size_t> begins;
    size_t bytes = 0;
    for (const Slab& slab : slabs) {
        begins.push_back(bytes);
        const size_t size = checked_product(checked_product(slab.width, recording_.needs.max_tokens), sizeof(float));
        bytes += (size + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
    }
    memory_ = std::make_shared<Mapping>(std::max<size_t>(bytes, kAlignment));
    for (size_t slab : slab_of) buffers_.push_back(reinterpret_cast<float*>(memory_->data() + begins[slab]));
}

void Program::check_cache() const {
    const Recording& r = recording_;
    if (r.num_delta_layers == 0 && r.num_attention_layers == 0) return;
    const CacheShape& shape = runtime_->opened_cache().shape();
    const bool conv_fits =
        r.conv_kernel == 0 || (r.conv_kernel == shape.conv_kernel && r.conv_channels == shape.delta.channels());
    const bool delta_fits =
        r.num_delta_layers <= shape.num_delta_layers && (r.delta.num_k == 0 || r.delta == shape.delta);
    const bool attention_fits = r.num_attention_layers <= shape.num_attention_layers &&
                                (r.attention.num_kv == 0 || r.attention == shape.attention);
    if (!conv_fits || !delta_fits || !attention_fits)
        throw KernelError("the cache was opened for a network of another shape");
}

template <class F>
void Program::step(F&& assign) {
    const std::lock_guard<std::mutex> lock(runtime_->running);
    check_cache();
    const uint64_t allocations = qwick::num_allocations(), sections = runtime_->pool.num_sections();
    assign(runtime_->cache ? &runtime_->cache->shape() : nullptr);
    if (batch_.num_tokens > 0) replay();
    num_allocations_ = qwick::num_allocations() - allocations;
    num_sections_ = runtime_->pool.num_sections() - sections;
}

void Program::run(const BatchArrays& arrays) {
    step([&](const CacheShape* cache) { batch_.assign(arrays, recording_.needs, cache); });
}

void Program::commit(const int32_t* commits, int64_t count) {
    step([&](const CacheShape* cache) { batch_.assign_commits(commits, count, recording_.needs, cache); });
}

void Program::replay() {
    const bool prompt = std::any_of(batch_.spans.begin(), batch_.spans.end(),
                                    [](const RowSpan& span) { return span.role == Role::prompt; });
    const PoolRun pool_run(runtime_->pool, prompt ? runtime_->threads_batch : runtime_->threads);
    Step step{runtime_->dispatch.kernels,
              runtime_->pool,
              runtime_->cache.get(),
              batch_,
              scratch_,
              head_,
              head_spans_,
              buffers_.data()};
    const auto begin = std::chrono::steady_clock::now();
    auto op_begin = begin;
    for (size_t i = 0; i < recording_.ops.size(); ++i) {
        scratch_.reset();
        std::visit([&](const auto& concrete) { qwick::run(concrete, step); }, recording_.ops[i]);
        if (op_seconds_.empty()) continue;
        const auto op_end = std::chrono::steady_clock::now();
        op_seconds_[i] = std::chrono::duration<double>(op_end - op_begin).count();
        op_begin = op_end;
    }
    replay_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace qwick
