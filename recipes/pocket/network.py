"""The pocket model's geometry, its first weights, and its loss, through qwick's own network and torch ops."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qwick.model.config import ModelConfig, parse_config
from qwick.model.names import TensorSpec, tensor_specs
from qwick.model.qwen3_5 import Qwen3_5, Tensors
from qwick.model.rope import RopeTable
from qwick.ops.contract import AttentionHeads, DeltaHeads
from qwick.ops.delta_chunks import delta_chunks
from qwick.ops.torch import delta_inputs
from recipes.pocket.tokenizer import VOCAB_SIZE

LAYER_TYPES = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]

# The geometry rules of the released models: linear heads of 128, attention heads of 256 with 64 rotary dims, every
# inner size a multiple of 256, twice as many V heads as K heads.
TEXT_CONFIG: dict[str, Any] = {
    "model_type": "qwen3_5_text",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": len(LAYER_TYPES),
    "layer_types": LAYER_TYPES,
    "full_attention_interval": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_output_gate": True,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000000,
        "partial_rotary_factor": 0.25,
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
    },
    "max_position_embeddings": 16384,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "mamba_ssm_dtype": "float32",
    "mtp_num_hidden_layers": 1,
    "mtp_use_dedicated_embeddings": False,
    "use_cache": True,
    "dtype": "bfloat16",
}


def model_config(text_config: Mapping[str, Any] = TEXT_CONFIG) -> ModelConfig:
    return parse_config({"model_type": "qwen3_5", "text_config": text_config, "tie_word_embeddings": True})


class PocketModel(torch.nn.Module):
    """Parameters in canonical form (qwick.model.names); of the decay rate the logarithm, so that it keeps its sign."""

    def __init__(self, seed: int, text_config: Mapping[str, Any] = TEXT_CONFIG) -> None:
        super().__init__()
        self.config = model_config(text_config)
        self.specs = list(tensor_specs(self.config))
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.nn.ParameterDict(
            {_key(spec): torch.nn.Parameter(_first_values(spec, self.config, generator)) for spec in self.specs}
        )
        cos, sin = RopeTable(self.config).angles(np.arange(self.config.max_position_embeddings))
        self._cos, self._sin = torch.from_numpy(cos), torch.from_numpy(sin)

    def forward(self, tokens: Tensor, starts: Tensor) -> Tensor:
        """The last norm's output of every token; tokens and starts [rows, length] -> [rows, length, hidden_size]."""
        network = Qwen3_5(self.config, Tensors(self._canonical()))
        hidden = network.forward(_TrainingOps(), self._step(tokens, starts)).hidden
        assert hidden is not None
        return hidden

    def draft(self, tokens: Tensor, starts: Tensor, hidden: Tensor) -> Tensor:
        """The MTP block's: place t has hidden t and token t + 1, and predicts token t + 2. The last one of a row wraps
        round; nothing wants it."""
        network = Qwen3_5(self.config, Tensors(self._canonical()))
        drafted = network.draft(_TrainingOps(), self._step(tokens.roll(-1, dims=1), starts, hidden)).hidden
        assert drafted is not None
        return drafted

    def logits(self, hidden: Tensor, places: Tensor) -> Tensor:
        """Of flat places: [places, vocab]."""
        return F.linear(hidden.flatten(0, 1)[places], self.weights["embed_tokens"])

    def file_tensors(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`weights` (this module's, or their average) by checkpoint name, in the released dtypes."""
        return {_file_name(spec): _to_file(spec, weights[_key(spec)]) for spec in self.specs}

    def _canonical(self) -> dict[str, Tensor]:
        return {
            spec.name: -self.weights[_key(spec)].exp() if _is_decay(spec) else self.weights[_key(spec)]
            for spec in self.specs
        }

    def _step(self, tokens: Tensor, starts: Tensor, hidden: Tensor | None = None) -> "_PackedStep":
        length = tokens.shape[1]
        return _PackedStep(tokens, starts, self._cos[:length], self._sin[:length], hidden)


class _PackedStep:
    """Rows of equal length, each a chain of whole documents that do not see one another.

    Rotary positions count from the row's beginning: attention knows only their differences.
    """

    def __init__(self, tokens: Tensor, starts: Tensor, cos: Tensor, sin: Tensor, hidden: Tensor | None) -> None:
        self.tokens, self.starts, self.cos, self.sin, self.hidden = tokens, starts, cos, sin, hidden
        self.document = starts.cumsum(1)
        place = torch.arange(tokens.shape[1])
        self.mask = (self.document[:, :, None] == self.document[:, None]) & (place[:, None] >= place)


class _TrainingOps:
    """The ops of the two programs that training runs, on a `_PackedStep`; vectors are [rows, length, size]."""

    def embed(self, table: Tensor, step: _PackedStep) -> Tensor:
        return F.embedding(step.tokens, table)

    def hidden(self, step: _PackedStep) -> Tensor:
        assert step.hidden is not None
        return step.hidden

    def concat(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.cat([left, right], dim=-1)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight

    def linear(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return F.linear(x, torch.cat(list(weights))).split([len(w) for w in weights], dim=-1)

    def linear_add(self, x: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
        return residual + F.linear(x, weight)

    def gate_up(self, x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
        g, u = F.linear(x, torch.cat([gate, up])).chunk(2, dim=-1)
        return F.silu(g) * u

    def causal_conv(self, qkv: Tensor, weight: Tensor, layer: int, step: _PackedStep) -> Tensor:
        length, taps = qkv.shape[1], weight.shape[1]
        y = qkv * weight[:, -1]
        for back in range(1, taps):
            same = F.pad(step.document[:, back:] == step.document[:, :-back], (back, 0)).unsqueeze(-1)
            y = y + F.pad(qkv, (0, 0, back, 0))[:, :length] * same * weight[:, taps - 1 - back]
        return F.silu(y)

    def gated_delta(
        self,
        qkv: Tensor,
        a: Tensor,
        b: Tensor,
        decay: Tensor,
        dt_bias: Tensor,
        layer: int,
        heads: DeltaHeads,
        step: _PackedStep,
    ) -> Tensor:
        return delta_chunks(*delta_inputs(qkv, a, b, decay, dt_bias, heads), starts=step.starts)[0].flatten(2)

    def gated_rms_norm(self, x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
        heads = x.unflatten(-1, (-1, weight.shape[0]))
        return self.rms_norm(heads, weight, eps).flatten(-2) * F.silu(gate)

    def norm_rope(
        self, x: Tensor, weight: Tensor, eps: float, heads: AttentionHeads, step: _PackedStep, *, gated: bool
    ) -> Tensor:
        x = x.unflatten(-1, (-1, 2, heads.head_dim))[..., 0, :] if gated else x.unflatten(-1, (-1, heads.head_dim))
        x = self.rms_norm(x, weight, eps)
        cos, sin, half = step.cos[:, None], step.sin[:, None], heads.rotary_dim // 2
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1).flatten(-2)

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_gate: Tensor,
        layer: int,
        heads: AttentionHeads,
        step: _PackedStep,
    ) -> Tensor:
        q = query.unflatten(-1, (heads.num_q, heads.head_dim)).transpose(1, 2)
        k, v = (x.unflatten(-1, (heads.num_kv, heads.head_dim)).transpose(1, 2) for x in (key, value))
        scores = (q @ k.mT) * heads.head_dim**-0.5
        out = scores.masked_fill(~step.mask[:, None], -torch.inf).softmax(-1) @ v
        gate = query_gate.unflatten(-1, (heads.num_q, 2, heads.head_dim))[..., 1, :].flatten(-2)
        return out.transpose(1, 2).flatten(-2) * torch.sigmoid(gate)

    def head(self, x: Tensor, table: Tensor, step: _PackedStep) -> Tensor:
        return x  # `PocketModel.logits` takes the rows that matter

    def replay(
        self, conv: Tensor, decay: Tensor, dt_bias: Tensor, layer: int, heads: DeltaHeads, step: _PackedStep
    ) -> None:
        raise AssertionError("training commits nothing")


def _key(spec: TensorSpec) -> str:
    return spec.name.replace(".", "/")  # a parameter's name may hold no dot


def _is_decay(spec: TensorSpec) -> bool:
    return spec.name.endswith("A_log")


def _file_name(spec: TensorSpec) -> str:
    return spec.file_name if spec.name.startswith("mtp.") else f"model.language_model.{spec.file_name}"


def _to_file(spec: TensorSpec, weight: Tensor) -> Tensor:
    values = weight.detach()
    values = -values.exp() if _is_decay(spec) else values
    tensor = torch.from_numpy(spec.to_file(values.numpy().astype(np.float32)))
    keep_f32 = _is_decay(spec) or spec.name.endswith("linear_attn.norm")
    return tensor if keep_f32 else tensor.to(torch.bfloat16)


def _first_values(spec: TensorSpec, config: ModelConfig, generator: torch.Generator) -> Tensor:
    """Matrices normal with 1/sqrt(inputs), less where they end on the residual stream; norms 1; decay as in Mamba-2."""
    name = spec.name.rsplit(".", 1)[-1]
    if spec.matrix:
        std = 1 / math.sqrt(spec.shape[1])
        if name in {"out_proj", "o_proj", "down_proj"}:
            std /= math.sqrt(2 * config.num_layers)
        if name == "embed_tokens":
            std = TEXT_CONFIG["initializer_range"]
        return torch.randn(spec.shape, generator=generator) * std
    if name == "conv1d":
        taps = spec.shape[-1]
        return (torch.rand((spec.shape[0], taps), generator=generator) * 2 - 1) / math.sqrt(taps)
    uniform = torch.rand(spec.shape, generator=generator)
    if name == "A_log":
        return (1 + 15 * uniform).log()
    if name == "dt_bias":  # softplus(dt_bias) from 0.001 to 0.1, log-uniform
        step = torch.exp(math.log(1e-3) + uniform * math.log(100))
        return step + torch.log(-torch.expm1(-step))
    return torch.ones(spec.shape)
