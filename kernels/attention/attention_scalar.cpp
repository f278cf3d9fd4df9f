// One step of the online softmax over a block of keys: definition. arXiv:2205.14135, algorithm 1.
#include <algorithm>
#include <cmath>

#include "attention/kv_block.h"
#include "attention/kv_scalar.h"
#include "tables.h"

namespace qwick::scalar {
namespace {

// Scores become weights exp(score - m); m and l are brought up to date. Returns what acc must be multiplied by.
float weigh(float* scores, int64_t num_keys, float& m, float& l) {
    float new_m = m;
    for (int64_t j = 0; j < num_keys; ++j) new_m = std::fmax(new_m, scores[j]);
    const float correction = std::exp(m - new_m);
    m = new_m;
    l *= correction;
    for (int64_t j = 0; j < num_keys; ++j) l += scores[j] = std::exp(scores[j] - m);
    return correction;
}

template <class Stored>
void attend_block(const AttendRows& rows, const KvBlock& block) {
    const auto* keys = static_cast<const Stored*>(block.data);
    const auto* values = reinterpret_cast<const Stored*>(static_cast<const std::byte*>(block.data) +
                                                         kv_block_bytes(format_of(keys), rows.head_dim));
    for (int64_t r = 0; r < rows.count; ++r) {
        const int64_t num_keys = rows.visible[r];
        if (num_keys == 0) continue;
        float weights[kBlockLen];
        float* acc = rows.acc + r * rows.head_dim;
        scores_of(rows.query + r * rows.head_dim, keys, num_keys, rows.head_dim, weights);
        const float correction = weigh(weights, num_keys, rows.m[r], rows.l[r]);
        for (int64_t d = 0; d < rows.head_dim; ++d) acc[d] *= correction;
        add_values(weights, values, num_keys, rows.head_dim, acc);
    }
}

template <class Stored>
void fill_format(Kernels& table) {
    const int entry = static_cast<int>(format_of(static_cast<const Stored*>(nullptr)));
    table.attend_block[entry] = table.attend_prompt[entry] = attend_block<Stored>;
    table.load_query[entry] = table.load_prompt_query[entry] = load_query<Stored>;
    table.store_key[entry] = store_key<Stored>;
    table.store_value[entry] = store_value<Stored>;
}

}  // namespace

void fill_attention(Kernels& table) {
    fill_format<float>(table);
    fill_format<F16>(table);
    fill_format<Bf16>(table);
    fill_format<Q8Groups>(table);
}

}  // namespace qwick::scalar
