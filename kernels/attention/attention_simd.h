// One step of the online softmax over a block of keys. arXiv:2205.14135, algorithm 1.
// Included after simd_<isa>.h.
//
// Up to four query rows share what is loaded and converted of keys and values, each output keeping its own chain.
// Memory further on is prefetched line by line: over the end of the keys into the values, and from there into the next
// block. The arithmetic fills the reorder window, and without that the hardware loses the stream.
#include "attention/kv_floats_simd.h"
#include "attention/kv_many_rows_simd.h"
#include "attention/kv_q8_simd.h"
#include "attention/kv_store_simd.h"
#include "attention/weigh_simd.h"
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

constexpr int kQueriesTogether = 4;

template <class Stored>
constexpr KvFormat kFormat = KvFormat::f32;
template <>
constexpr KvFormat kFormat<F16> = KvFormat::f16;
template <>
constexpr KvFormat kFormat<Bf16> = KvFormat::bf16;
template <>
constexpr KvFormat kFormat<Q8Groups> = KvFormat::q8_0;

// Rows [r, r + R), each of which sees at least one key.
template <int R, class Stored>
void attend_rows(const AttendRows& rows, int64_t r, const KvBlock& block) {
    alignas(64) float scores[R * kBlockLen];
    float corrections[R];
    const int32_t* visible = rows.visible + r;
    int64_t most = visible[0];
    for (int i = 1; i < R; ++i) most = visible[i] > most ? visible[i] : most;
    const auto* keys = static_cast<const Stored*>(block.data);
    const int64_t bytes = kv_block_bytes(kFormat<Stored>, rows.head_dim);
    const auto* values = reinterpret_cast<const Stored*>(static_cast<const char*>(block.data) + bytes);
    const ReadAhead read_ahead = read_ahead_of(block, bytes, piece_bytes<R>(values), r + R < rows.count);
    score_rows<R>(rows.query + r * rows.head_dim, keys, most, rows.head_dim, scores, read_ahead);
    for (int i = 0; i < R; ++i) {
        corrections[i] = weigh(scores + i * kBlockLen, visible[i], rows.m + r + i, rows.l + r + i);
    }
    add_visible<R>(values, scores, visible, rows.head_dim, corrections, rows.acc + r * rows.head_dim, read_ahead);
}

// `count` <= R rows from r on.
template <int R, class Stored>
void attend_up_to(int64_t count, const AttendRows& rows, int64_t r, const KvBlock& block) {
    if (count == R) return attend_rows<R, Stored>(rows, r, block);
    if constexpr (R > 1) attend_up_to<R - 1, Stored>(count, rows, r, block);
}

// Rows that see nothing are stepped over.
template <class Stored>
void attend_block(const AttendRows& rows, const KvBlock& block) {
    for (int64_t r = 0; r < rows.count;) {
        int64_t count = 0;
        while (count < kMostRows && r + count < rows.count && rows.visible[r + count] > 0) ++count;
        if constexpr (kFormat<Stored> != KvFormat::q8_0) {
            if (count >= kManyRows && rows.head_dim <= kMostDims) {
                attend_many_rows<Stored>(rows, r, count, block);
                r += count;
                continue;
            }
        }
        count = count < kQueriesTogether ? count : kQueriesTogether;
        attend_up_to<kQueriesTogether, Stored>(count, rows, r, block);
        r += count > 0 ? count : 1;
    }
}

template <class Stored>
void fill_format(Kernels& table) {
    constexpr int entry = static_cast<int>(kFormat<Stored>);
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

}  // namespace qwick::ISA_NAMESPACE
