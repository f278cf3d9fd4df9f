// The softmax of one row over one block, between scores and weighted values. Included by attention_simd.h.
#pragma once

#include "attention/kv_block.h"

namespace qwick::ISA_NAMESPACE {
namespace {

// Scores become weights exp(score - m), 0 after the visible ones. Returns what acc must be multiplied by.
inline float weigh(float* scores, int64_t visible, float* m, float* l) {
    for (int64_t j = visible; j < kBlockLen; ++j) scores[j] = -__builtin_inff();
    Vec largest = load(scores);
    for (int64_t j = kLanes; j < kBlockLen; j += kLanes) largest = max(largest, load(scores + j));
    const float block_max = reduce_max(largest), new_m = block_max > *m ? block_max : *m;
    const float correction = exp(*m - new_m);
    Vec sum = zero();
    for (int64_t j = 0; j < kBlockLen; j += kLanes) {
        const Vec weight = exp(sub(load(scores + j), splat(new_m)));
        store(scores + j, weight);
        sum = add(sum, weight);
    }
    *m = new_m;
    *l = *l * correction + reduce_add(sum);
    return correction;
}

}  // namespace
}  // namespace qwick::ISA_NAMESPACE
