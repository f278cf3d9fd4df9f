// The two kinds of memory: KV pages of the attention layers, slots of the recurrent layers.
#pragma once

#include <cstdint>
#include <vector>

#include "arena.h"
#include "attention/kv_block.h"
#include "kernels.h"
#include "thread_pool.h"

namespace qwick {

constexpr int64_t kMaxDraftLen = 8;  // rows of one verification, length of a slot's pending lane
constexpr int64_t kStateTile = 32;   // v lanes of one item of the delta rule: 16 KiB of state at k_dim 128
constexpr int64_t kSplitLen = 512;   // keys per split, on absolute positions

struct AttentionHeads {
    int64_t num_q, num_kv, head_dim, rotary_dim;
    bool operator==(const AttentionHeads& o) const {
        return num_q == o.num_q && num_kv == o.num_kv && head_dim == o.head_dim && rotary_dim == o.rotary_dim;
    }
};

struct DeltaHeads {
    int64_t num_k, num_v, k_dim, v_dim;
    int64_t channels() const { return 2 * num_k * k_dim + num_v * v_dim; }
    bool operator==(const DeltaHeads& o) const {
        return num_k == o.num_k && num_v == o.num_v && k_dim == o.k_dim && v_dim == o.v_dim;
    }
};

struct CacheShape {
    int64_t num_attention_layers, num_delta_layers;
    AttentionHeads attention;
    DeltaHeads delta;
    int64_t conv_kernel, num_pages, num_slots, page_len;
    KvFormat kv_format;
};

// KV [layer][page][kv head][page_len / 64] blocks of keys, then values (attention/kv_block.h). Slots, f32,
// [layer][slot] of:
//   state    [v head][v_dim / kDeltaTile][k_dim][kDeltaTile]
//   conv     [conv_kernel - 1][channels], oldest column first
//   pending  [kMaxDraftLen][channels + 2 num_v]: qkv before the convolution, a, b
class Cache {
  public:
    explicit Cache(const CacheShape& shape);  // throws CapacityError, KernelError

    const CacheShape& shape() const { return shape_; }
    // The block that holds token `offset` of a page: keys, and value_offset() bytes behind them values.
    std::byte* kv_block(int64_t layer, int64_t page, int64_t head, int64_t offset) const {
        const int64_t index = (layer * shape_.num_pages + page) * shape_.attention.num_kv + head;
        return kv_ + (index * (shape_.page_len / kBlockLen) + offset / kBlockLen) * 2 * keys_bytes_;
    }
    int64_t value_offset() const { return keys_bytes_; }

    float* state(int64_t layer, int64_t slot, int64_t head) const {
        const DeltaHeads& d = shape_.delta;
        return state_ + ((layer * shape_.num_slots + slot) * d.num_v + head) * d.k_dim * d.v_dim;
    }
    float* conv(int64_t layer, int64_t slot) const { return conv_ + (layer * shape_.num_slots + slot) * conv_len(); }
    float* pending(int64_t layer, int64_t slot, int64_t token) const {
        return pending_ + ((layer * shape_.num_slots + slot) * kMaxDraftLen + token) * pending_width();
    }
    int64_t conv_len() const { return (shape_.conv_kernel - 1) * shape_.delta.channels(); }
    int64_t pending_width() const { return shape_.delta.channels() + 2 * shape_.delta.num_v; }
    int64_t state_len() const { return shape_.delta.num_v * shape_.delta.k_dim * shape_.delta.v_dim; }
    size_t num_bytes() const { return arena_.used_bytes(); }

    // All throw KernelError, before anything is written, for an index out of range.
    void copy_slot(int64_t source, int64_t target, ThreadPool& pool);
    void copy_page(int64_t source, int64_t target, ThreadPool& pool);

    // A slot's state and convolution, all layers end to end, in the memory of pages: page by page, of each the part of
    // every attention layer. KernelError also for a page named twice and for too few pages; more are left alone.
    void save_state(int64_t slot, const std::vector<int64_t>& pages, ThreadPool& pool);
    void load_state(const std::vector<int64_t>& pages, int64_t slot, ThreadPool& pool);

  private:
    int64_t page_part_bytes() const;  // of a page in one attention layer: its parts lie apart
    void check_state_pages(int64_t slot, const std::vector<int64_t>& pages) const;
    template <class Copy>  // copy(in the slot, in the pages, bytes)
    void for_state_pieces(int64_t slot, const std::vector<int64_t>& pages, ThreadPool& pool, Copy copy);

    CacheShape shape_;
    int64_t keys_bytes_;
    Arena arena_;
    std::byte* kv_ = nullptr;
    float* state_ = nullptr;
    float* conv_ = nullptr;
    float* pending_ = nullptr;
};

}  // namespace qwick
