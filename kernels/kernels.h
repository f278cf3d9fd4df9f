// The leaf kernels: what every instruction set implements, and nothing else.
//
// Threads, ragged batches, pages and slots are the drivers' business (linear/, gated_delta/, attention/, ...); a leaf
// sees raw pointers of one small piece of work. `scalar` defines each leaf in plain C++; other tables fill what they do
// better and inherit the rest (dispatch.cpp). All sums have one fixed order that depends on the sizes of one output
// element only, so a result never changes with the number of rows, the piece or the thread. ISA files include no STL
// header but <cstdint>/<cstddef>, and everything in them lives in the ISA's own namespace (one-definition rule; see
// docs/kernels.md).
#pragma once

#include <cstddef>
#include <cstdint>

namespace qwick {

// How a weight is stored. From i8 on: families of blocks (blocks.h).
enum class Family : int32_t { f32, bf16, f16, i8, u4, u4m, u5, u5m, t4, t4e, u4k, u5k, u6k, u4s, t4k };
constexpr int kNumFamilies = 15;
constexpr const char* kFamilyNames[kNumFamilies] = {"f32", "bf16", "f16", "i8",  "u4",  "u4m", "u5", "u5m",
                                                    "t4",  "t4e",  "u4k", "u5k", "u6k", "u4s", "t4k"};
// Of functions that files of an instruction set share with others: no copy of their own for the linker to choose among.
#define QWICK_INLINE [[gnu::always_inline]] constexpr

QWICK_INLINE bool is_blocks(Family family) {
    return family >= Family::i8;
}

constexpr int64_t kQuantBlock = 32;   // values along k that share one scale of a quantised activation
constexpr int64_t kPanelCols = 16;    // weight rows (output columns) of one panel
constexpr int64_t kPanelDepth = 512;  // columns of a panel, at absolute multiples: whole blocks
constexpr int64_t kDeltaTile = 16;    // v lanes of the delta rule's state that lie together

enum class KvFormat : int32_t { f32, f16, bf16, q8_0 };  // of keys and values: attention/kv_block.h
constexpr int kNumKvFormats = 4;
constexpr const char* kKvFormatNames[kNumKvFormats] = {"f32", "f16", "bf16", "q8_0"};

// A [rows, cols] weight (out features, in features).
struct Weight {
    Family family;
    int64_t rows, cols;
    const void* data;  // row major float, bf16 or f16 bits (uint16_t); or tiles of blocks (blocks.h)
};

// m activation rows of length k. `f32` is always there; the decode rows of block families read what is quantised.
struct Rows {
    int64_t m, k;
    const float* f32;  // [m, ld]
    int64_t ld;
    const int8_t* q;         // [m, k]
    const float* d;          // [m, k / 32]
    const int16_t* sums;     // [m, k / 16]: of q
    const uint8_t* shifted;  // [m, k]: q + 128
};

// 16 weight rows by up to kPanelDepth columns, k-major. Family f32: as they are. All others: k in pairs, as integers
// times a scale for each row (codec/panel.h), or with AMX in bf16.
struct alignas(64) Panel {
    union {
        float values[kPanelDepth][kPanelCols];
        int16_t codes[kPanelDepth / 2][kPanelCols][2];
        uint16_t bf16[kPanelDepth / 2][kPanelCols][2];
    };
    float scales[kPanelCols];
};

// How prompt rows of all families but f32 are multiplied. An instruction set that has a form of its own has all leaves
// that know it: round_strip, decode_panel, strip_product.
struct PromptForm {
    int64_t strip_rows;  // activation rows whose values lie together, at most kMostStripRows
    bool whole_strips;   // a last strip of fewer rows is filled up, with zeros; products write those rows, too
    int64_t panels;      // that are decoded together,
    int64_t few_panels;  // or where there are no more rows than kFewRows
    int64_t rows;        // activation rows that meet all of them before the next ones come
};
constexpr int64_t kMostStripRows = 16;
constexpr int64_t kFewRows = 96;  // stay in L2 anyway, and need weights as fast as memory gives them

// m activation rows in one panel's columns, in strips of PromptForm::strip_rows rows one after another, the last one
// perhaps shorter. Integers: [k_len / 2][its rows][2], times a scale for each row. bf16: [k_len / 32][16][32].
struct Strips {
    int64_t m;
    const int16_t* values;
    const float* scales;  // [m]
};

// Query rows over one kv head, and their running softmax: m starts at -inf, l and acc at 0.
struct AttendRows {
    int64_t count, head_dim;
    const float* query;      // [count, head_dim], each as load_query or load_prompt_query leaves it
    const int32_t* visible;  // [count]: how many keys of the block a row sees, 0 to 64
    float *m, *l;            // [count], running maximum and sum
    float* acc;              // [count, head_dim], running output
};

// 64 keys of one kv head and, right behind them, their values (attention/kv_block.h).
struct KvBlock {
    const void* data;
    const void* next;  // the block that will be read after this one, or null: a hint
};

struct Kernels {
    // --- linear, decode rows
    // d = amax / 127 per block, q = round-half-even(x / d); both 0 when d would be subnormal; d a NaN and q 0 when a
    // value of the block is infinite or a NaN, so that its row's products are NaNs. sums: of 16 q each.
    void (*quantize_i8)(const float* x, int64_t k, int8_t* q, float* d, int16_t* sums);
    // y[i * ldy + j] = dot(x row i, w row begin + j) for j < end - begin, all i < m; one entry per family. Blocks:
    // `begin` is a multiple of 16, and every ISA gives the same bits; see dots_of_blocks in linear_scalar.cpp.
    void (*dots[kNumFamilies])(const Rows& x, const Weight& w, int64_t begin, int64_t end, float* y, int64_t ldy);

    // --- linear, prompt rows
    PromptForm (*prompt_form)();
    // A strip of m activation rows: rows[i] points at k_len values, a multiple of 32, at most kPanelDepth. Integers of
    // at most 2047 and their scale (codec/panel.h), or bf16, nearest even, without scales.
    void (*round_strip)(const float* const* rows, int64_t m, int64_t k_len, int16_t* strip, float* scales);
    // Rows [row, row + kPanelCols) and columns [k_begin, k_begin + k_len) of w; rows past the end are zeros. `row` is a
    // multiple of 16, k_begin and k_len <= kPanelDepth are of the block's length, or of 32.
    void (*decode_panel[kNumFamilies])(const Weight& w, int64_t row, int64_t k_begin, int64_t k_len, Panel& panel);
    // f32. y[i * ldy + j] (+)= sum_kk x[i * ldx + kk] * panel.values[kk][j], kk ascending, fused multiply-add, for
    // i < m, j < kPanelCols. `first` starts from zero, otherwise from y.
    void (*panel_product)(const float* x, int64_t ldx, int64_t m, const Panel& panel, int64_t k_len, bool first,
                          float* y, int64_t ldy);
    // The other families; panel p makes columns 16 p .. 16 p + 15. Integers: y[i * ldy + j] = fma(dot of row i's and
    // those of panel row j, x.scales[i] * panel.scales[j], first ? 0 : y[i * ldy + j]), the same bits on every ISA.
    // bf16: y is one chain over k of tile_dot (simd/tiles_amx.h), from 0 if `first`.
    void (*strip_product)(const Strips& x, const Panel* panels, int64_t num_panels, int64_t k_len, bool first, float* y,
                          int64_t ldy);

    // --- elementwise and norms
    void (*decode_row[kNumFamilies])(const Weight& w, int64_t row, float* out);  // exact (not bf16-rounded)
    void (*add)(const float* a, const float* b, int64_t n, float* out);
    void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);    // silu(gate) * up
    void (*sigmoid_mul)(const float* gate, const float* x, int64_t n, float* out);  // sigmoid(gate) * x
    void (*rms_norm)(const float* x, const float* w, float eps, int64_t n, float* out);
    void (*gated_rms_norm)(const float* x, const float* gate, const float* w, float eps, int64_t n, float* out);
    // out = x * rsqrt(sum(x^2) + 1e-6) * scale; it may be x.
    void (*l2_norm)(const float* x, int64_t n, float scale, float* out);
    // RMS-normalise one head, rotate its first rotary_dim values (pairs d, d + rotary_dim / 2).
    void (*norm_rope)(const float* x, const float* w, float eps, const float* cos, const float* sin, int64_t head_dim,
                      int64_t rotary_dim, float* out);

    // --- recurrent layers
    // out[t * ldo + c] = silu(sum_i taps[i * ldt + c] * rows[t + i][c]) for t < num_tokens, c < channels, i ascending;
    // rows[t + num_taps - 1] is token t.
    void (*conv_silu)(const float* const* rows, const float* taps, int64_t ldt, int64_t num_taps, int64_t channels,
                      int64_t num_tokens, float* out, int64_t ldo);
    // The delta rule over num_tokens tokens for v lanes [v_begin, v_end) of one head; both multiples of kDeltaTile.
    // State s is [v_dim / kDeltaTile][k_dim][kDeltaTile]. q, k [t * ldqk] normalised and scaled; v [t * ldv];
    // g, beta [t * ldg]; out [t * ldo]; see Ops.gated_delta. o is computed as g S^T q + (k . q) delta from the old S,
    // which is the same and needs one pass over the state. Every ISA gives the same bits: no sum crosses lanes but k .
    // q, which always is eight running sums (i mod 8), folded in halves.
    void (*delta_run)(float* s, int64_t k_dim, int64_t v_dim, int64_t v_begin, int64_t v_end, int64_t num_tokens,
                      const float* q, const float* k, int64_t ldqk, const float* v, int64_t ldv, const float* g,
                      const float* beta, int64_t ldg, float* out, int64_t ldo);

    // --- attention, an entry per KvFormat
    // One step of the online softmax of all rows over a block. A row that sees nothing is left alone; what a row does
    // not see may hold anything.
    void (*attend_block[kNumKvFormats])(const AttendRows& rows, const KvBlock& block);
    // A query row as attend_block reads it, times scale: f32, or for q8_0 int16 [head_dim], then an f32 scale.
    void (*load_query[kNumKvFormats])(const float* x, int64_t head_dim, float scale, float* out);
    // The same of prompt rows, head_dim a multiple of 32 and at most 256: with AMX in parts of bf16, else the two
    // above.
    void (*attend_prompt[kNumKvFormats])(const AttendRows& rows, const KvBlock& block);
    void (*load_prompt_query[kNumKvFormats])(const float* x, int64_t head_dim, float scale, float* out);
    // Write one row to its place among the keys or the values of a block; nothing else of the block changes.
    void (*store_key[kNumKvFormats])(const float* x, int64_t head_dim, int64_t key, void* keys);
    void (*store_value[kNumKvFormats])(const float* x, int64_t head_dim, int64_t key, void* values);

    // --- head
    float (*max_value)(const float* x, int64_t n);
    float (*sum_exp)(const float* x, int64_t n, float max);  // sum exp(x - max)
};

}  // namespace qwick
