#include "op_notes.h"

namespace qwick {
namespace {

class Notes {
  public:
    explicit Notes(const Recording& recording) : recording_(recording) {}

    OpNote operator()(const EmbedOp&) const { return {"embed", "", 0}; }
    OpNote operator()(const HiddenOp&) const { return {"hidden", "", 0}; }
    OpNote operator()(const ConcatOp&) const { return {"concat", "", 0}; }
    OpNote operator()(const RmsNormOp&) const { return {"rms_norm", "", 0}; }
    OpNote operator()(const GatedRmsNormOp&) const { return {"gated_rms_norm", "", 0}; }
    OpNote operator()(const NormRopeOp&) const { return {"norm_rope", "", 0}; }
    OpNote operator()(const CausalConvOp&) const { return {"causal_conv", "", 0}; }
    OpNote operator()(const GatedDeltaOp&) const { return {"gated_delta", "", 0}; }
    OpNote operator()(const DeltaNetOp&) const { return {"gated_delta", "", 0}; }
    OpNote operator()(const ReplayOp&) const { return {"replay", "", 0}; }
    OpNote operator()(const AttentionOp&) const { return {"attention", "", 0}; }
    OpNote operator()(const HeadOp& op) const { return reading("head", &op.table, 1); }
    OpNote operator()(const LinearOp& op) const {
        return reading(op.residual < 0 ? "linear" : "linear_add", op.weights.data(), op.weights.size());
    }
    OpNote operator()(const GateUpOp& op) const {
        const Weight both[] = {op.gate, op.up};
        return reading("gate_up", both, 2);
    }

  private:
    OpNote reading(const char* kind, const Weight* weights, size_t count) const {
        OpNote note{kind, "", 0};
        for (size_t i = 0; i < count; ++i) {
            for (const auto& tensor : recording_.weights) {
                if (tensor->bytes() != weights[i].data) continue;
                note.weights += (i > 0 ? " " : "") + tensor->name();
                note.bytes += tensor->num_bytes();
                break;
            }
        }
        return note;
    }

    const Recording& recording_;
};

}  // namespace

std::vector<OpNote> notes_of(const Recording& recording) {
    std::vector<OpNote> notes;
    for (const Op& op : recording.ops) notes.push_back(std::visit(Notes(recording), op));
    return notes;
}

}  // namespace qwick
