#include "fusion.h"

namespace qwick {
namespace {

// The three ops from `i` on as one, if they are a delta layer.
bool is_delta_net(const Recording& r, size_t i) {
    if (i + 2 >= r.ops.size()) return false;
    const auto* conv = std::get_if<CausalConvOp>(&r.ops[i]);
    const auto* delta = std::get_if<GatedDeltaOp>(&r.ops[i + 1]);
    const auto* norm = std::get_if<GatedRmsNormOp>(&r.ops[i + 2]);
    if (!conv || !delta || !norm) return false;
    const auto read_last_by = [&](BufferId value, size_t op) { return r.values[value].last_use == int64_t(op); };
    return delta->qkv == conv->out && norm->x == delta->out && norm->gate != delta->out &&
           conv->layer == delta->layer && conv->channels == delta->heads.channels() &&
           norm->dim == delta->heads.v_dim && read_last_by(conv->out, i + 1) && read_last_by(delta->out, i + 2);
}

}  // namespace

void fuse(Recording& recording) {
    std::vector<Op> ops;
    std::vector<int32_t> place;  // of each op that was
    for (size_t i = 0; i < recording.ops.size();) {
        const size_t count = is_delta_net(recording, i) ? 3 : 1;
        place.insert(place.end(), count, static_cast<int32_t>(ops.size()));
        if (count == 3) {
            ops.emplace_back(DeltaNetOp{std::get<CausalConvOp>(std::move(recording.ops[i])),
                                        std::get<GatedDeltaOp>(recording.ops[i + 1]),
                                        std::get<GatedRmsNormOp>(recording.ops[i + 2])});
        } else {
            ops.push_back(std::move(recording.ops[i]));
        }
        i += count;
    }
    place.push_back(static_cast<int32_t>(ops.size()));  // of results, read when all is done
    for (Value& value : recording.values) {
        if (value.born >= 0) value.born = place[value.born];
        if (value.last_use >= 0) value.last_use = place[value.last_use];
    }
    recording.ops = std::move(ops);
}

}  // namespace qwick
