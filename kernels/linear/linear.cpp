#include "linear/linear.h"

#include <algorithm>
#include <cstring>

#include "codec/codec.h"
#include "linear/activations.h"

namespace qwick {
namespace {

constexpr int64_t kDecodeRows = 16;  // activation rows per pass over a piece of weight
// Of weight per item. A piece begins with cold lines, and the lines prefetched behind it may be another thread's: with
// 32 KiB two threads of a Milan read 21 GB/s of Q8_0, with 128 KiB 25. Matrices that would leave threads without work
// are cut finer. Pieces of prompts, which take long, are what is decoded together.
constexpr int64_t kPieceBytes = 128 << 10, kLeastPieceBytes = 32 << 10, kPiecesPerThread = 4;
constexpr int64_t kMaxPieces = 4096;  // per weight; the LM head has 248,320 rows

bool needs_strips(const Weight& w) {
    return w.family != Family::f32;
}
bool needs_quants(const Weight& w) {
    return is_blocks(w.family);
}

// By whole tiles, because GCC makes a string instruction of a copy of unknown length: 2 % of a prompt.
void copy(const float* from, int64_t count, float* to) {
    int64_t i = 0;
    for (; i + kPanelCols <= count; i += kPanelCols) std::memcpy(to + i, from + i, kPanelCols * sizeof(float));
    for (; i < count; ++i) to[i] = from[i];
}

// A weight's tiles of 16 rows in pieces of equal length, give or take a tile. As many for each thread: nine pieces of a
// matrix of 1.2 MB kept one of two threads waiting for a tenth of the time. No sum depends on where pieces begin.
struct Cut {
    int64_t tiles, pieces;

    // panels: those of prompt rows that are decoded together, 0 if there are none.
    Cut(const Weight& w, int threads, int64_t panels) : tiles((w.rows + kPanelCols - 1) / kPanelCols) {
        const int64_t total = tiles * memory_bytes(w.family, kPanelCols, w.cols);
        const int64_t share = total / (threads * kPiecesPerThread);
        const int64_t bytes = std::min(std::max(share, kLeastPieceBytes), kPieceBytes);
        const int64_t together = std::min(std::max<int64_t>(tiles / (threads * kPiecesPerThread), 1), panels);
        pieces = panels > 0 ? (tiles + together - 1) / together : (total + bytes - 1) / bytes;
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
    PromptForm form;
    int64_t num_prompt_rows;
    int64_t tile_len;
    float* scratch;  // per thread: two tiles
    Panel* panels;   // per thread: form.panels

    float* tile(int thread, int which) const { return scratch + (2 * thread + which) * tile_len; }

    void piece(const Product& p, int64_t begin, int64_t end, int thread) const {
        for (const RowSpan& span : spans) {
            if (span.role == Role::decode) decode_rows(p, span, begin, end, thread);
        }
        if (num_prompt_rows == 0) return;
        const int64_t together = (num_prompt_rows > kFewRows ? form.panels : form.few_panels) * kPanelCols;
        for (int64_t col = begin; col < end; col += together)
            prompt_rows(p, col, std::min(end - col, together), thread);
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

    // All prompt rows times `width` weight rows into y [rows, width]; every weight block is decoded once.
    void product(const Weight& w, int64_t col, int64_t width, float* y, Panel* panel) const {
        const int64_t count = (width + kPanelCols - 1) / kPanelCols, ldy = count * kPanelCols;
        for (int64_t k_begin = 0; k_begin < in.k; k_begin += kPanelDepth) {
            const int64_t k_len = panel_columns(in.k, k_begin);
            for (int64_t i = 0; i < count; ++i) {
                step.kernels.decode_panel[static_cast<int>(w.family)](w, col + i * kPanelCols, k_begin, k_len,
                                                                      panel[i]);
            }
            (this->*(needs_strips(w) ? &Multiplier::add_strips : &Multiplier::add_floats))(k_begin, k_len, panel, count,
                                                                                           y, ldy);
        }
    }

    void add_strips(int64_t k_begin, int64_t k_len, const Panel* panel, int64_t count, float* y, int64_t ldy) const {
        const int16_t* values = in.strips + k_begin * in.strip_rows;
        const float* scales = in.strip_scales + k_begin / kPanelDepth * num_prompt_rows;
        for (int64_t row = 0; row < num_prompt_rows; row += form.rows) {
            const Strips rows{std::min(num_prompt_rows - row, form.rows), values + row * k_len, scales + row};
            step.kernels.strip_product(rows, panel, count, k_len, k_begin == 0, y + row * ldy, ldy);
        }
    }

    void add_floats(int64_t k_begin, int64_t k_len, const Panel* panel, int64_t count, float* y, int64_t ldy) const {
        for (const RowSpan& span : spans) {
            if (span.role != Role::prompt) continue;
            const int64_t m = span.end - span.begin;
            const float* x = in.x + span.begin * in.k + k_begin;
            for (int64_t i = 0; i < count; ++i)
                step.kernels.panel_product(x, in.k, m, panel[i], k_len, k_begin == 0, y + i * kPanelCols, ldy);
            y += m * ldy;
        }
    }

    void prompt_rows(const Product& p, int64_t col, int64_t width, int thread) const {
        Panel* panel = panels + thread * form.panels;
        product(p.weight, col, width, tile(thread, 0), panel);
        if (p.up) product(*p.up, col, width, tile(thread, 1), panel);
        const int64_t ldy = (width + kPanelCols - 1) / kPanelCols * kPanelCols;
        int64_t offset = 0;
        for (const RowSpan& span : spans) {
            if (span.role != Role::prompt) continue;
            for (int64_t row = span.begin; row < span.end; ++row, offset += ldy) {
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
            copy(sums, width, p.out + place);
        }
    }
};

}  // namespace

void multiply(Step& step, const float* x, int64_t k, const std::vector<RowSpan>& spans, const Product* products,
              int64_t num_products) {
    if (spans.empty()) return;
    int64_t prompt = 0;
    for (const RowSpan& span : spans) prompt += span.role == Role::prompt ? span.end - span.begin : 0;
    const PromptForm form = step.kernels.prompt_form();
    const auto cut_of = [&](const Weight& w) { return Cut(w, step.pool.threads(), prompt > 0 ? form.panels : 0); };
    bool strips = false, quantize = false;
    int64_t num_pieces = 0, widest = kPanelCols;
    for (int64_t i = 0; i < num_products; ++i) {
        const Product& p = products[i];
        strips |= needs_strips(p.weight) || (p.up && needs_strips(*p.up));
        quantize |= needs_quants(p.weight) || (p.up && needs_quants(*p.up));
        num_pieces += cut_of(p.weight).pieces;
        widest = std::max(widest, cut_of(p.weight).widest());
    }
    Activations in{};
    in.x = x, in.k = k;
    if (quantize) quantize_rows(step, in, spans);
    if (strips && prompt > 0) round_rows(step, in, spans, prompt);
    const int64_t tile_len = std::max(kDecodeRows * widest, rows_of_strips(form, prompt) * form.panels * kPanelCols);
    const int64_t threads = step.pool.threads();
    const Multiplier multiplier{step,
                                spans,
                                in,
                                form,
                                prompt,
                                tile_len,
                                step.scratch.get<float>(2 * tile_len * threads),
                                step.scratch.get<Panel>(prompt > 0 ? form.panels * threads : 0)};
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
