#include "recorder.h"

#include <algorithm>

#include "errors.h"
#include "fusion.h"

namespace qwick {
namespace {

constexpr int64_t kMaxTokens = 1 << 20;
constexpr int64_t kLanes = 16;  // heads are whole vectors of the widest ISA
constexpr int64_t kHeadWidth = -1;

[[noreturn]] void refuse(const std::string& complaint) {
    throw KernelError("cannot record the network: " + complaint);
}

}  // namespace

Recorder::Recorder(int64_t max_tokens) {
    if (max_tokens < 1 || max_tokens > kMaxTokens) refuse("max_tokens must be 1 to " + std::to_string(kMaxTokens));
    recording_.needs.max_tokens = max_tokens;
}

BufferId Recorder::add_value(int64_t width) {
    recording_.values.push_back({width, -1, static_cast<int32_t>(recording_.ops.size())});
    return static_cast<BufferId>(recording_.values.size()) - 1;
}

int64_t Recorder::use(BufferId id, int64_t width) {
    if (id < 0 || id >= static_cast<BufferId>(recording_.values.size())) refuse("a value is not of this program");
    Value& value = recording_.values[id];
    if (value.width == 0 && width > 0) {  // the batch's hidden states: their first reader says how wide they are
        value.width = recording_.needs.hidden_width = width;
        std::get<HiddenOp>(recording_.ops[value.born]).width = width;
    }
    if (value.width <= 0 || (width > 0 && value.width != width)) {
        refuse("a value has width " + std::to_string(value.width) + ", " + std::to_string(width) + " is needed");
    }
    value.last_use = static_cast<int32_t>(recording_.ops.size());
    return value.width;
}

const Weight& Recorder::matrix(const TensorPtr& tensor, int64_t cols) {
    const Weight& weight = tensor->matrix();
    if (cols > 0 && weight.cols != cols) {
        refuse(tensor->name() + " has rows of " + std::to_string(weight.cols) + " values for inputs of " +
               std::to_string(cols));
    }
    recording_.weights.push_back(tensor);
    return weight;
}

const float* Recorder::vector(const TensorPtr& tensor, int64_t size) {
    recording_.weights.push_back(tensor);
    return tensor->vector(size);
}

BufferId Recorder::embed(const TensorPtr& table) {
    const Weight& weight = matrix(table, 0);
    auto& vocab = recording_.needs.vocab;
    vocab = vocab ? std::min(vocab, weight.rows) : weight.rows;
    const BufferId out = add_value(weight.cols);
    recording_.ops.emplace_back(EmbedOp{weight, out});
    return out;
}

BufferId Recorder::hidden() {
    for (const Op& op : recording_.ops) {
        if (std::holds_alternative<HiddenOp>(op)) refuse("hidden states are read twice");
    }
    const BufferId out = add_value(0);
    recording_.ops.emplace_back(HiddenOp{0, out});
    return out;
}

BufferId Recorder::concat(BufferId left, BufferId right) {
    const int64_t left_width = use(left), right_width = use(right);
    const BufferId out = add_value(left_width + right_width);
    recording_.ops.emplace_back(ConcatOp{left, right, left_width, right_width, out});
    return out;
}

BufferId Recorder::rms_norm(BufferId x, const TensorPtr& weight, float eps) {
    const auto width = static_cast<int64_t>(weight->num_bytes() / sizeof(float));
    use(x, width);
    const BufferId out = add_value(width);
    recording_.ops.emplace_back(RmsNormOp{x, vector(weight, width), width, eps, out});
    return out;
}

std::vector<BufferId> Recorder::linear(BufferId x, const std::vector<TensorPtr>& weights) {
    if (weights.empty() || weights.size() > kMaxLinearWeights) refuse("linear takes 1 to 8 weights");
    LinearOp op{x, {}, {}};
    for (const TensorPtr& weight : weights) op.weights.push_back(matrix(weight, weight->matrix().cols));
    for (const Weight& weight : op.weights) use(x, weight.cols);
    for (const Weight& weight : op.weights) op.outs.push_back(add_value(weight.rows));
    recording_.ops.emplace_back(op);
    return op.outs;
}

BufferId Recorder::linear_add(BufferId x, const TensorPtr& weight, BufferId residual) {
    const Weight& w = matrix(weight, use(x));
    use(residual, w.rows);
    const BufferId out = add_value(w.rows);
    recording_.ops.emplace_back(LinearOp{x, {w}, {out}, residual});
    return out;
}

BufferId Recorder::gate_up(BufferId x, const TensorPtr& gate, const TensorPtr& up) {
    const int64_t width = use(x);
    const Weight &g = matrix(gate, width), &u = matrix(up, width);
    if (g.rows != u.rows) refuse(gate->name() + " and " + up->name() + " differ in shape");
    const BufferId out = add_value(g.rows);
    recording_.ops.emplace_back(GateUpOp{x, g, u, out});
    return out;
}

CausalConvOp Recorder::convolution(const TensorPtr& weight, int64_t layer) {
    if (weight->shape().size() != 2) refuse(weight->name() + " is not [channels, taps]");
    const int64_t channels = weight->shape()[0], taps = weight->shape()[1];
    const float* values = vector(weight, channels * taps);
    auto& known = recording_.conv_kernel;
    auto& known_channels = recording_.conv_channels;
    if (taps < 2 || taps > 16 || (known && (known != taps || known_channels != channels))) {
        refuse(weight->name() + " has a wrong number of taps or channels");
    }
    if (layer < 0) refuse("a layer index is negative");
    known = taps;
    known_channels = channels;
    CausalConvOp op{-1, std::vector<float>(channels * taps), taps, channels, layer, -1};
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < taps; ++i) op.taps[i * channels + c] = values[c * taps + i];
    }
    recording_.num_delta_layers = std::max(recording_.num_delta_layers, layer + 1);
    recording_.needs.slots = true;
    return op;
}

BufferId Recorder::causal_conv(BufferId qkv, const TensorPtr& weight, int64_t layer) {
    CausalConvOp op = convolution(weight, layer);
    use(qkv, op.channels);
    op.x = qkv;
    op.out = add_value(op.channels);
    recording_.ops.emplace_back(op);
    return op.out;
}

GatedDeltaOp Recorder::delta_rule(const TensorPtr& decay, const TensorPtr& dt_bias, int64_t layer,
                                  const DeltaHeads& heads) {
    const bool whole = heads.num_k > 0 && heads.num_v > 0 && heads.num_v % heads.num_k == 0 && heads.k_dim > 0 &&
                       heads.k_dim % kLanes == 0 && heads.v_dim > 0 && heads.v_dim % kLanes == 0;
    if (!whole) refuse("delta heads need num_v a multiple of num_k, and dims that are multiples of 16");
    auto& known = recording_.delta;
    if (known.num_k > 0 && !(known == heads)) refuse("delta layers differ in their heads");
    if (layer < 0) refuse("a layer index is negative");
    known = heads;
    recording_.num_delta_layers = std::max(recording_.num_delta_layers, layer + 1);
    recording_.needs.slots = true;
    return {-1, -1, -1, vector(decay, heads.num_v), vector(dt_bias, heads.num_v), layer, heads, -1};
}

BufferId Recorder::gated_delta(BufferId qkv, BufferId a, BufferId b, const TensorPtr& decay, const TensorPtr& dt_bias,
                               int64_t layer, const DeltaHeads& heads) {
    GatedDeltaOp op = delta_rule(decay, dt_bias, layer, heads);
    use(qkv, heads.channels());
    use(a, heads.num_v);
    use(b, heads.num_v);
    op.qkv = qkv, op.a = a, op.b = b;
    op.out = add_value(heads.num_v * heads.v_dim);
    recording_.ops.emplace_back(op);
    return op.out;
}

BufferId Recorder::gated_rms_norm(BufferId x, BufferId gate, const TensorPtr& weight, float eps) {
    const int64_t width = use(x), dim = static_cast<int64_t>(weight->num_bytes() / sizeof(float));
    use(gate, width);
    if (dim == 0 || width % dim != 0) refuse(weight->name() + " does not divide the width it normalises");
    const BufferId out = add_value(width);
    recording_.ops.emplace_back(GatedRmsNormOp{x, gate, vector(weight, dim), width / dim, dim, eps, out});
    return out;
}

void Recorder::require_heads(const AttentionHeads& h) {
    const bool whole = h.num_kv > 0 && h.num_q > 0 && h.num_q % h.num_kv == 0 && h.head_dim > 0 &&
                       h.head_dim % kLanes == 0 && h.rotary_dim > 0 && h.rotary_dim % 2 == 0 &&
                       h.rotary_dim <= h.head_dim;
    if (!whole) refuse("attention heads need num_q a multiple of num_kv and head_dim a multiple of 16");
    auto& known = recording_.attention;
    if (known.num_kv > 0 && !(known == h)) refuse("attention layers differ in their heads");
    known = h;
}

BufferId Recorder::norm_rope(BufferId x, const TensorPtr& weight, float eps, const AttentionHeads& heads, bool gated) {
    require_heads(heads);
    const int64_t num = gated ? heads.num_q : heads.num_kv, stride = gated ? 2 * heads.head_dim : heads.head_dim;
    use(x, num * stride);
    recording_.needs.rope_half = heads.rotary_dim / 2;
    const BufferId out = add_value(num * heads.head_dim);
    recording_.ops.emplace_back(
        NormRopeOp{x, vector(weight, heads.head_dim), eps, num, heads.head_dim, heads.rotary_dim, stride, out});
    return out;
}

BufferId Recorder::attention(BufferId query, BufferId key, BufferId value, BufferId query_gate, int64_t layer,
                             const AttentionHeads& heads) {
    require_heads(heads);
    if (layer < 0) refuse("a layer index is negative");
    const int64_t width = heads.num_q * heads.head_dim;
    use(query, width);
    use(key, heads.num_kv * heads.head_dim);
    use(value, heads.num_kv * heads.head_dim);
    use(query_gate, 2 * width);
    recording_.num_attention_layers = std::max(recording_.num_attention_layers, layer + 1);
    recording_.needs.pages = true;
    const BufferId out = add_value(width);
    recording_.ops.emplace_back(AttentionOp{query, key, value, query_gate, layer, heads, out});
    return out;
}

BufferId Recorder::head(BufferId x, const TensorPtr& table) {
    if (head_ >= 0) refuse("it has two heads");
    const Weight& weight = matrix(table, use(x));
    recording_.needs.head_rows = weight.rows;
    head_ = add_value(kHeadWidth);
    recording_.ops.emplace_back(HeadOp{x, weight});
    return head_;
}

void Recorder::replay(const TensorPtr& conv, const TensorPtr& decay, const TensorPtr& dt_bias, int64_t layer,
                      const DeltaHeads& heads) {
    ReplayOp op{convolution(conv, layer), delta_rule(decay, dt_bias, layer, heads)};
    if (op.conv.channels != heads.channels()) refuse(conv->name() + " does not have the heads' channels");
    recording_.needs.commits = true;
    recording_.ops.emplace_back(op);
}

Recording Recorder::finish(BufferId hidden, BufferId head) {
    if (recording_.needs.commits) {
        for (const Op& op : recording_.ops) {
            if (!std::holds_alternative<ReplayOp>(op)) refuse("a commit program has other ops than replays");
        }
    }
    if (head != head_) refuse("its head output is not its head");
    if (hidden >= 0) use(hidden);
    for (const Value& value : recording_.values) {
        if (value.width == 0) refuse("hidden states are read by nobody");
    }
    recording_.hidden = hidden;
    recording_.has_head = head >= 0;
    for (Value& value : recording_.values) value.width = std::max<int64_t>(value.width, 0);
    head_ = -1;
    fuse(recording_);
    return std::move(recording_);
}

}  // namespace qwick
