#include "linear/linear.h"

#include <algorithm>
#include <cstring>

#include "codec/codec.h"

namespace qwick {
namespace {

constexpr int64_t kDecodeRows = 16;   // activation rows per pass over a piece of weight
constexpr int64_t kPanelDepth = 512;  // k per panel, whole blocks: 32 KiB, half of L1 or a small part of L2
// Of weight per item. A piece begins with cold lines, and the lines prefetched behind it may be another thread's: with
// 32 KiB two threads of a Milan read 21 GB/s of Q8_0, with 128 KiB 25. Matrices that would leave threads without work
// are cut finer, and prompts, whose pieces take long.
constexpr int64_t kPieceBytes = 128 << 10, kLeastPieceBytes = 32 << 10, kPiecesPerThread = 4;
constexpr int64_t kMaxPieces = 4096;  // per weight; the LM head has 248,320 rows

// The activations in every form that some span and weight need.
struct Activations {
    const float* x;          // [rows, k]
    const float* rounded;    // [rows, k], prompt rows only
    const int8_t* q;         // [rows, k], decode rows only
    const float* d;          // [rows, k / 32]
    const int16_t* sums;     // [rows, k / 16]
    const uint8_t* shifted;  // [rows, k]: q + 128
    int64_t k;
};

bool needs_rounding(const Weight& w) {
    return w.family != Family::f32;
}
bool needs_quants(const Weight& w) {
    return is_blocks(w.family);
}

// A weight's tiles of 16 rows in pieces of equal length, give or take a tile. As many for each thread: nine pieces of a
// matrix of 1.2 MB kept one of two threads waiting for a tenth of the time. No sum depends on where pieces begin.
struct Cut {
    int64_t tiles, pieces;

    Cut(const Weight& w, int threads, bool prompt) : tiles((w.rows + kPanelCols - 1) / kPanelCols) {
        const int64_t total = tiles * memory_bytes(w.family, kPanelCols, w.cols);
        const int64_t share = total / (threads * kPiecesPerThread);
        const int64_t bytes = prompt ? kLeastPieceBytes : std::min(std::max(share, kLeastPieceBytes), kPieceBytes);
        pieces = (total + bytes - 1) / bytes;
        if (pieces > threads) pieces = (pieces + threads - 1) / threads * threads;
        pieces = std::max<int64_t>(std::min({pieces, tiles, kMaxPieces}), 1);
    }
    int64_t begin(int64_t piece) const { return piece * tiles / pieces * kPanelCols; }
    int64_t widest() const { return (tiles + pieces - 1) / pieces * kPanelCols; }
};

struct Multiplier {
    Step& step;
    const std::vector<RowSpan>& spans;
    Activations in;
    int64_t num_prompt_rows;
    int64_t tile_len, scratch_len;
    float* scratch;  // per thread: two tiles, one panel

    float* tile(int thread, int which) const { return scratch + thread * scratch_len + which * tile_len; }
    float* panel(int thread) const { return tile(thread, 2); }

    void piece(const Product& p, int64_t begin, int64_t end, int thread) const {
        for (const RowSpan& span : spans) {
            if (span.role == Role::decode) decode_rows(p, span, begin, end, thread);
        }
        if (num_prompt_rows == 0) return;
        for (int64_t col = begin; col < end; col += kPanelCols)
            prompt_rows(p, col, std::min(end - col, kPanelCols), thread);
    }

    void dots(const Weight& w, int64_t row, int64_t m, int64_t begin, int64_t end, float* y, int64_t ldy) const {
        const int64_t k = in.k;
        const Rows rows{m,
                        k,
                        in.x + row * k,
                        k,
                        in.q + row * k,
                        in.d + row * (k / 32),
                        in.sums + row * (k / 16),
                        in.shifted + row * k};
        step.kernels.dots[static_cast<int>(w.family)](rows, w, begin, end, y, ldy);
    }

    void decode_rows(const Product& p, const RowSpan& span, int64_t begin, int64_t end, int thread) const {
        const int64_t n = p.weight.rows, width = end - begin;
        for (int64_t row = span.begin; row < span.end; row += kDecodeRows) {
            const int64_t m = std::min(span.end - row, kDecodeRows);
            float* out = p.out + row * n + begin;
            if (!p.up && !p.residual) {
                dots(p.weight, row, m, begin, end, out, n);
                continue;
            }
            dots(p.weight, row, m, begin, end, tile(thread, 0), width);
            if (p.up) dots(*p.up, row, m, begin, end, tile(thread, 1), width);
            for (int64_t i = 0; i < m; ++i) finish(p, row + i, begin, width, thread, i * width);
        }
    }

    // All prompt rows times 16 weight rows; every weight block is decoded once.
    void product(const Weight& w, int64_t col, float* y, float* panel) const {
        const float* x = needs_rounding(w) ? in.rounded : in.x;
        for (int64_t k_begin = 0; k_begin < in.k; k_begin += kPanelDepth) {
            const int64_t k_len = std::min(in.k - k_begin, kPanelDepth);
            step.kernels.decode_panel[static_cast<int>(w.family)](w, col, k_begin, k_len, panel);
            float* rows = y;
            for (const RowSpan& span : spans) {
                if (span.role != Role::prompt) continue;
                const int64_t m = span.end - span.begin;
                step.kernels.panel_product(x + span.begin * in.k + k_begin, in.k, m, panel, k_len, k_begin == 0, rows,
                                           kPanelCols);
                rows += m * kPanelCols;
            }
        }
    }

    void prompt_rows(const Product& p, int64_t col, int64_t width, int thread) const {
        product(p.weight, col, tile(thread, 0), panel(thread));
        if (p.up) product(*p.up, col, tile(thread, 1), panel(thread));
        int64_t offset = 0;
        for (const RowSpan& span : spans) {
            if (span.role != Role::prompt) continue;
            for (int64_t row = span.begin; row < span.end; ++row, offset += kPanelCols) {
                finish(p, row, col, width, thread, offset);
            }
        }
    }

    // `width` finished sums of one row, at `offset` of the thread's tiles, into the output.
    void finish(const Product& p, int64_t row, int64_t col, int64_t width, int thread, int64_t offset) const {
        const int64_t place = row * p.weight.rows + col;
        const float* sums = tile(thread, 0) + offset;
        if (p.up) {
            step.kernels.silu_mul(sums, tile(thread, 1) + offset, width, p.out + place);
        } else if (p.residual) {
            step.kernels.add(p.residual + place, sums, width, p.out + place);
        } else {
            std::memcpy(p.out + place, sums, width * sizeof(float));
        }
    }
};

void shift(const int8_t* q, int64_t n, uint8_t* shifted) {
    for (int64_t i = 0; i < n; ++i) shifted[i] = static_cast<uint8_t>(q[i] ^ -128);
}

Activations prepare(Step& step, const float* x, int64_t k, const std::vector<RowSpan>& spans, bool round,
                    bool quantize) {
    const int64_t rows = spans.back().end, blocks = k / kQuantBlock;
    float* rounded = step.scratch.get<float>(round ? rows * k : 0);
    auto* q = step.scratch.get<int8_t>(quantize ? rows * k : 0);
    float* d = step.scratch.get<float>(quantize ? rows * blocks : 0);
    auto* sums = step.scratch.get<int16_t>(quantize ? rows * blocks * 2 : 0);
    auto* shifted = step.scratch.get<uint8_t>(quantize ? rows * k : 0);
    for (const RowSpan& span : spans) {
        const bool prompt = span.role == Role::prompt;
        if (!(prompt ? round : quantize)) continue;
        step.for_pieces(span.end - span.begin, 4, [&](int64_t begin, int64_t end, int) {
            for (int64_t row = span.begin + begin; row < span.begin + end; ++row) {
                if (prompt) {
                    step.kernels.round_bf16(x + row * k, k, rounded + row * k);
                } else {
                    step.kernels.quantize_i8(x + row * k, k, q + row * k, d + row * blocks, sums + row * blocks * 2);
                    shift(q + row * k, k, shifted + row * k);
                }
            }
        });
    }
    return {x, rounded, q, d, sums, shifted, k};
}

}  // namespace

void multiply(Step& step, const float* x, int64_t k, const std::vector<RowSpan>& spans, const Product* products,
              int64_t num_products) {
    if (spans.empty()) return;
    int64_t prompt = 0;
    for (const RowSpan& span : spans) prompt += span.role == Role::prompt ? span.end - span.begin : 0;
    const auto cut_of = [&](const Weight& w) { return Cut(w, step.pool.threads(), prompt > 0); };
    bool round = false, quantize = false;
    int64_t num_pieces = 0, widest = kPanelCols;
    for (int64_t i = 0; i < num_products; ++i) {
        const Product& p = products[i];
        round |= needs_rounding(p.weight) || (p.up && needs_rounding(*p.up));
        quantize |= needs_quants(p.weight) || (p.up && needs_quants(*p.up));
        num_pieces += cut_of(p.weight).pieces;
        widest = std::max(widest, cut_of(p.weight).widest());
    }
    const Activations in = prepare(step, x, k, spans, round, quantize);
    const int64_t tile_len = std::max(kDecodeRows * widest, prompt * kPanelCols);
    const int64_t scratch_len = 2 * tile_len + kPanelDepth * kPanelCols;
    const Multiplier multiplier{
        step, spans, in, prompt, tile_len, scratch_len, step.scratch.get<float>(scratch_len * step.pool.threads())};
    step.pool.for_each(num_pieces, [&](int64_t item, int thread) {
        for (const Product* p = products;; ++p) {
            const Cut cut = cut_of(p->weight);
            if (item < cut.pieces) {
                multiplier.piece(*p, cut.begin(item), std::min(cut.begin(item + 1), p->weight.rows), thread);
                return;
            }
            item -= cut.pieces;
        }
    });
}

void run(const LinearOp& op, Step& step) {
    Product products[kMaxLinearWeights];
    const auto count = static_cast<int64_t>(op.weights.size());
    for (int64_t i = 0; i < count; ++i) {
        products[i].weight = op.weights[i];
        products[i].out = step.value(op.outs[i]);
        if (op.residual >= 0) products[i].residual = step.value(op.residual);
    }
    multiply(step, step.value(op.x), op.weights[0].cols, step.batch.spans, products, count);
}

void run(const GateUpOp& op, Step& step) {
    const Product product{op.gate, &op.up, nullptr, step.value(op.out)};
    multiply(step, step.value(op.x), op.gate.cols, step.batch.spans, &product, 1);
}

}  // namespace qwick
