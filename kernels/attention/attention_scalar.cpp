// One step of the online softmax over a block of keys: definition. arXiv:2205.14135, algorithm 1.
#include <cmath>

#include "codec/half.h"
#include "tables.h"

namespace qwick::scalar {
namespace {

constexpr int64_t kBlockLen = 64;

float as_it_is(float x) {
    return x;
}

template <class Stored, float (*Decode)(Stored)>
void scores_of(const float* query, const Stored* keys, int64_t num_keys, int64_t head_dim, float* scores) {
    for (int64_t j = 0; j < num_keys; ++j) {
        float score = 0;
        for (int64_t d = 0; d < head_dim; ++d) score = std::fma(query[d], Decode(keys[j * head_dim + d]), score);
        scores[j] = score;
    }
}

// Scores become weights exp(score - m); l and acc are brought to the new maximum m.
template <class Stored, float (*Decode)(Stored)>
void attend_row(const float* query, int64_t num_keys, int64_t head_dim, const Stored* keys, const Stored* values,
                float& m, float& l, float* acc) {
    float weights[kBlockLen];
    scores_of<Stored, Decode>(query, keys, num_keys, head_dim, weights);
    float new_m = m;
    for (int64_t j = 0; j < num_keys; ++j) new_m = std::fmax(new_m, weights[j]);
    const float correction = std::exp(m - new_m);
    m = new_m;
    l *= correction;
    for (int64_t j = 0; j < num_keys; ++j) l += weights[j] = std::exp(weights[j] - m);
    for (int64_t d = 0; d < head_dim; ++d) {
        acc[d] *= correction;
        for (int64_t j = 0; j < num_keys; ++j) acc[d] = std::fma(weights[j], Decode(values[j * head_dim + d]), acc[d]);
    }
}

template <class Stored, float (*Decode)(Stored)>
void attend_block(const float* query, int64_t num_rows, int64_t head_dim, const void* keys, const void* values,
                  const int32_t* visible, float* m, float* l, float* acc) {
    for (int64_t r = 0; r < num_rows; ++r) {
        if (visible[r] == 0) continue;
        attend_row<Stored, Decode>(query + r * head_dim, visible[r], head_dim, static_cast<const Stored*>(keys),
                                   static_cast<const Stored*>(values), m[r], l[r], acc + r * head_dim);
    }
}

}  // namespace

void fill_attention(Kernels& table) {
    table.attend_block[0] = attend_block<float, as_it_is>;
    table.attend_block[1] = attend_block<uint16_t, f16_to_f32>;
}

}  // namespace qwick::scalar
