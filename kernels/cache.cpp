#include "cache.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "errors.h"

namespace qwick {
namespace {

constexpr int64_t kMaxCount = int64_t{1} << 31;

size_t product(std::initializer_list<int64_t> sizes) {
    size_t result = 1;
    for (int64_t size : sizes) result = checked_product(result, static_cast<size_t>(size));
    return result;
}

void check_shape(const CacheShape& s) {
    const auto& a = s.attention;
    const auto& d = s.delta;
    for (int64_t size : {a.num_q, a.num_kv, a.head_dim, a.rotary_dim, d.num_k, d.num_v, d.k_dim, d.v_dim,
                         s.num_attention_layers, s.num_delta_layers, s.num_pages, s.num_slots}) {
        if (size < 0 || size > kMaxCount) throw KernelError("a size of the cache is out of range");
    }
    if (s.page_len < kBlockLen || s.page_len % kBlockLen != 0 || s.page_len > kMaxCount) {
        throw KernelError("the page length must be a multiple of 64 tokens");
    }
    if (s.kv_format == KvFormat::q8_0 && a.head_dim % kKvGroup != 0) {
        throw KernelError("a cache of q8_0 needs heads of a multiple of 32 values; this model's have " +
                          std::to_string(a.head_dim));
    }
    if (s.conv_kernel < 2 || s.conv_kernel > 16) throw KernelError("the convolution must have 2 to 16 taps");
}

void check_index(const char* what, int64_t index, int64_t count) {
    if (index < 0 || index >= count) {
        throw KernelError(std::string(what) + " " + std::to_string(index) + " does not exist; there are " +
                          std::to_string(count));
    }
}

struct Sizes {
    size_t kv, state, conv, pending;
    explicit Sizes(const CacheShape& s)
        : kv(product({s.num_attention_layers, s.num_pages, 2, s.attention.num_kv, s.page_len / kBlockLen,
                      kv_block_bytes(s.kv_format, s.attention.head_dim)})),
          state(product({s.num_delta_layers, s.num_slots, s.delta.num_v, s.delta.k_dim, s.delta.v_dim, 4})),
          conv(product({s.num_delta_layers, s.num_slots, s.conv_kernel - 1, s.delta.channels(), 4})),
          pending(product({s.num_delta_layers, s.num_slots, kMaxDraftLen, s.delta.channels() + 2 * s.delta.num_v, 4})) {
    }
    size_t total() const { return kv + state + conv + pending + 4 * kAlignment; }
};

Sizes checked_sizes(const CacheShape& shape) {
    check_shape(shape);
    return Sizes(shape);
}

}  // namespace

Cache::Cache(const CacheShape& shape)
    : shape_(shape),
      keys_bytes_(kv_block_bytes(shape.kv_format, shape.attention.head_dim)),
      arena_(checked_sizes(shape).total()) {
    const Sizes sizes(shape);
    kv_ = arena_.allocate(sizes.kv);
    state_ = reinterpret_cast<float*>(arena_.allocate(sizes.state));
    conv_ = reinterpret_cast<float*>(arena_.allocate(sizes.conv));
    pending_ = reinterpret_cast<float*>(arena_.allocate(sizes.pending));
}

void Cache::copy_slot(int64_t source, int64_t target, ThreadPool& pool) {
    check_index("slot", source, shape_.num_slots);
    check_index("slot", target, shape_.num_slots);
    if (source == target) return;
    pool.for_each(shape_.num_delta_layers, [&](int64_t layer, int) {
        std::memcpy(state(layer, target, 0), state(layer, source, 0), state_len() * sizeof(float));
        std::memcpy(conv(layer, target), conv(layer, source), conv_len() * sizeof(float));
    });
}

void Cache::copy_page(int64_t source, int64_t target, ThreadPool& pool) {
    check_index("page", source, shape_.num_pages);
    check_index("page", target, shape_.num_pages);
    if (source == target) return;
    pool.for_each(shape_.num_attention_layers, [&](int64_t layer, int) {
        std::memcpy(kv_block(layer, target, 0, 0), kv_block(layer, source, 0, 0), page_part_bytes());
    });
}

int64_t Cache::page_part_bytes() const {
    return shape_.attention.num_kv * (shape_.page_len / kBlockLen) * 2 * keys_bytes_;
}

void Cache::check_state_pages(int64_t slot, const std::vector<int64_t>& pages) const {
    check_index("slot", slot, shape_.num_slots);
    for (int64_t page : pages) check_index("page", page, shape_.num_pages);
    std::vector<int64_t> sorted = pages;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end()) throw KernelError("page " + std::to_string(*twice) + " is named twice for a state");
    const int64_t needed = shape_.num_delta_layers * (state_len() + conv_len()) * static_cast<int64_t>(sizeof(float));
    const int64_t given = static_cast<int64_t>(pages.size()) * shape_.num_attention_layers * page_part_bytes();
    if (given < needed) {
        throw KernelError("a state of " + std::to_string(needed) + " bytes does not fit the " + std::to_string(given) +
                          " of " + std::to_string(pages.size()) + " pages");
    }
}

// Of the state, item i is what the i-th part of the pages holds: pieces of one or more layers' state and convolution.
template <class Copy>
void Cache::for_state_pieces(int64_t slot, const std::vector<int64_t>& pages, ThreadPool& pool, Copy copy) {
    const int64_t state_bytes = state_len() * sizeof(float), conv_bytes = conv_len() * sizeof(float);
    const int64_t layer_bytes = state_bytes + conv_bytes, total = shape_.num_delta_layers * layer_bytes;
    const int64_t part = page_part_bytes(), parts_of_page = shape_.num_attention_layers;
    if (total == 0) return;
    pool.for_each((total + part - 1) / part, [&](int64_t item, int) {
        std::byte* in_pages = kv_block(item % parts_of_page, pages[item / parts_of_page], 0, 0);
        const int64_t end = std::min(total, (item + 1) * part);
        for (int64_t at = item * part, bytes; at < end; at += bytes, in_pages += bytes) {
            const int64_t layer = at / layer_bytes, offset = at % layer_bytes;
            const bool in_conv = offset >= state_bytes;
            float* begin = in_conv ? conv(layer, slot) : state(layer, slot, 0);
            bytes = std::min(end - at, (in_conv ? layer_bytes : state_bytes) - offset);
            copy(reinterpret_cast<std::byte*>(begin) + offset - (in_conv ? state_bytes : 0), in_pages, bytes);
        }
    });
}

void Cache::save_state(int64_t slot, const std::vector<int64_t>& pages, ThreadPool& pool) {
    check_state_pages(slot, pages);
    for_state_pieces(slot, pages, pool, [](const std::byte* in_slot, std::byte* in_pages, int64_t bytes) {
        std::memcpy(in_pages, in_slot, bytes);
    });
}

void Cache::load_state(const std::vector<int64_t>& pages, int64_t slot, ThreadPool& pool) {
    check_state_pages(slot, pages);
    for_state_pieces(slot, pages, pool, [](std::byte* in_slot, const std::byte* in_pages, int64_t bytes) {
        std::memcpy(in_slot, in_pages, bytes);
    });
}

}  // namespace qwick
