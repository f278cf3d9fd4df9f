// Records a network's ops (ops/native.py calls it as `Ops`), checking every shape on the way.
#pragma once

#include <memory>
#include <vector>

#include "program.h"

namespace qwick {

using TensorPtr = std::shared_ptr<Tensor>;

// Every method throws KernelError naming the tensor or value that does not fit. Arguments as in ops/contract.py.
class Recorder {
  public:
    explicit Recorder(int64_t max_tokens);

    BufferId embed(const TensorPtr& table);
    BufferId hidden();
    BufferId concat(BufferId left, BufferId right);
    BufferId rms_norm(BufferId x, const TensorPtr& weight, float eps);
    std::vector<BufferId> linear(BufferId x, const std::vector<TensorPtr>& weights);
    BufferId linear_add(BufferId x, const TensorPtr& weight, BufferId residual);
    BufferId gate_up(BufferId x, const TensorPtr& gate, const TensorPtr& up);
    BufferId causal_conv(BufferId qkv, const TensorPtr& weight, int64_t layer);
    BufferId gated_delta(BufferId qkv, BufferId a, BufferId b, const TensorPtr& decay, const TensorPtr& dt_bias,
                         int64_t layer, const DeltaHeads& heads);
    BufferId gated_rms_norm(BufferId x, BufferId gate, const TensorPtr& weight, float eps);
    BufferId norm_rope(BufferId x, const TensorPtr& weight, float eps, const AttentionHeads& heads, bool gated);
    BufferId attention(BufferId query, BufferId key, BufferId value, BufferId query_gate, int64_t layer,
                       const AttentionHeads& heads);
    BufferId head(BufferId x, const TensorPtr& table);
    void replay(const TensorPtr& conv, const TensorPtr& decay, const TensorPtr& dt_bias, int64_t layer,
                const DeltaHeads& heads);

    // The program's outputs, -1 for none. The recorder is empty afterwards.
    Recording finish(BufferId hidden, BufferId head);

  private:
    BufferId add_value(int64_t width);
    int64_t use(BufferId id, int64_t width = 0);  // width 0: any; returns the width
    const Weight& matrix(const TensorPtr& tensor, int64_t cols);
    const float* vector(const TensorPtr& tensor, int64_t size);
    CausalConvOp convolution(const TensorPtr& weight, int64_t layer);
    GatedDeltaOp delta_rule(const TensorPtr& decay, const TensorPtr& dt_bias, int64_t layer, const DeltaHeads& heads);
    void require_heads(const AttentionHeads& heads);

    Recording recording_;
    BufferId head_ = -1;
};

}  // namespace qwick
