"""The Qwen3.5 network, read from top to bottom.

Three Gated DeltaNet layers to one gated attention layer, each followed by a SwiGLU MLP, on a residual stream; then a
norm and the (tied or untied) head. Names are the checkpoint's. The functions compute nothing themselves: every line is
an op of `ops/contract.py`, so the same text is inference in C++ (recorded), oracle in f64, and training.

Shapes: x is [tokens, hidden_size]; a batch is ragged (several sequences, prompts and single tokens side by side).
Source: transformers 5.23 `models/qwen3_5`; the MTP block after llama.cpp `qwen35` and vLLM `qwen3_5_mtp`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from qwick.model.config import ModelConfig
from qwick.ops.contract import Network, Ops, Outputs, S, V, W


class Tensors(Generic[W]):
    """Weights by canonical name; `under("layers.0")` is the view below one prefix."""

    def __init__(self, by_name: Mapping[str, W], prefix: str = "") -> None:
        self._by_name = by_name
        self._prefix = prefix

    def __getitem__(self, name: str) -> W:
        return self._by_name[self._prefix + name]

    def under(self, name: str) -> "Tensors[W]":
        return Tensors(self._by_name, f"{self._prefix}{name}.")


@dataclass(frozen=True, slots=True)
class Qwen3_5(Generic[W]):
    """A config and its weights; the three methods are the network's programs."""

    config: ModelConfig
    weights: Tensors[W]

    def forward(self, ops: Ops[V, W, S], step: S) -> Outputs[V]:
        """Token ids -> the last norm's output of every row, and the head of the wanted rows."""
        w, eps = self.weights, self.config.rms_norm_eps
        x = ops.embed(w["embed_tokens"], step)
        num_attention = num_delta = 0
        for i, is_attention in enumerate(self.config.layer_is_attention):
            layer = w.under(f"layers.{i}")
            normed = ops.rms_norm(x, layer["input_layernorm"], eps)
            if is_attention:
                x = self._attention(ops, step, x, normed, layer.under("self_attn"), num_attention)
                num_attention += 1
            else:
                x = self._delta_net(ops, step, x, normed, layer.under("linear_attn"), num_delta)
                num_delta += 1
            x = self._mlp(ops, x, layer)
        hidden = ops.rms_norm(x, w["norm"], eps)
        return Outputs(hidden=hidden, head=ops.head(hidden, self._head_table(), step))

    def draft(self, ops: Ops[V, W, S], step: S) -> Outputs[V]:
        """One step of the MTP block. Row p: hidden h_p (after the last norm) and token p + 1 -> logits of token p + 2.

        To draft further, feed its own normed output back as the next hidden.
        """
        w, eps = self.weights, self.config.rms_norm_eps
        mtp = w.under("mtp")
        embedding = ops.rms_norm(ops.embed(w["embed_tokens"], step), mtp["pre_fc_norm_embedding"], eps)
        hidden = ops.rms_norm(ops.hidden(step), mtp["pre_fc_norm_hidden"], eps)
        (x,) = ops.linear(ops.concat(embedding, hidden), [mtp["fc"]])
        layer = mtp.under("layers.0")
        normed = ops.rms_norm(x, layer["input_layernorm"], eps)
        x = self._attention(ops, step, x, normed, layer.under("self_attn"), self.config.num_attention_layers)
        x = self._mlp(ops, x, layer)
        hidden = ops.rms_norm(x, mtp["norm"], eps)
        return Outputs(hidden=hidden, head=ops.head(hidden, self._head_table(), step))

    def commit(self, ops: Ops[V, W, S], step: S) -> Outputs[V]:
        """Advance the recurrent states over accepted draft tokens, from what `forward` left in the pending lanes."""
        layers = [i for i, is_attention in enumerate(self.config.layer_is_attention) if not is_attention]
        for num_delta, i in enumerate(layers):
            w = self.weights.under(f"layers.{i}.linear_attn")
            ops.replay(w["conv1d"], w["A_log"], w["dt_bias"], num_delta, self.config.delta, step)
        return Outputs()

    def _delta_net(self, ops: Ops[V, W, S], step: S, x: V, normed: V, w: Tensors[W], layer: int) -> V:
        """Gated DeltaNet (arXiv:2412.06464): x + out_proj(norm(delta_rule(conv(q, k, v))) * silu(z))."""
        qkv, z, b, a = ops.linear(normed, [w["in_proj_qkv"], w["in_proj_z"], w["in_proj_b"], w["in_proj_a"]])
        qkv = ops.causal_conv(qkv, w["conv1d"], layer, step)  # [tokens, q heads | k heads | v heads]
        out = ops.gated_delta(qkv, a, b, w["A_log"], w["dt_bias"], layer, self.config.delta, step)
        out = ops.gated_rms_norm(out, z, w["norm"], self.config.rms_norm_eps)
        return ops.linear_add(out, w["out_proj"], x)

    def _attention(self, ops: Ops[V, W, S], step: S, x: V, normed: V, w: Tensors[W], layer: int) -> V:
        """Gated grouped-query attention: x + o_proj(attend(q, k, v) * sigmoid(gate))."""
        heads, eps = self.config.attention, self.config.rms_norm_eps
        query_gate, key, value = ops.linear(normed, [w["q_proj"], w["k_proj"], w["v_proj"]])
        query = ops.norm_rope(query_gate, w["q_norm"], eps, heads, step, gated=True)
        key = ops.norm_rope(key, w["k_norm"], eps, heads, step, gated=False)
        out = ops.attention(query, key, value, query_gate, layer, heads, step)
        return ops.linear_add(out, w["o_proj"], x)

    def _mlp(self, ops: Ops[V, W, S], x: V, layer: Tensors[W]) -> V:
        w = layer.under("mlp")
        normed = ops.rms_norm(x, layer["post_attention_layernorm"], self.config.rms_norm_eps)
        return ops.linear_add(ops.gate_up(normed, w["gate_proj"], w["up_proj"]), w["down_proj"], x)

    def _head_table(self) -> W:
        return self.weights["embed_tokens" if self.config.tie_word_embeddings else "lm_head"]

    def programs(self) -> dict[str, Network[W]]:
        """The network's entry points by name; `draft` only with an MTP block."""
        programs: dict[str, Network[W]] = {"forward": self.forward, "commit": self.commit}
        return programs | ({"draft": self.draft} if self.config.has_mtp else {})
