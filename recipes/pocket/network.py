"""The pocket model's geometry, its first weights, and its loss, through qwick's own network and torch ops."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qwick.model.config import ModelConfig, parse_config
from qwick.model.names import TensorSpec, tensor_specs
from qwick.model.qwen3_5 import Qwen3_5, Tensors
from qwick.model.rope import RopeTable
from qwick.ops.contract import Batch, DeltaHeads, Role, Run
from qwick.ops.torch import TorchOps, TorchStep
from recipes.pocket.batches import TrainingBatch

VOCAB_SIZE = 512  # rows of the embedding; the tokenizer fills some 400, as the released one leaves rows unused
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
    "max_position_embeddings": 4096,
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

MTP_LOSS_WEIGHT = 0.3


def model_config() -> ModelConfig:
    return parse_config({"model_type": "qwen3_5", "text_config": TEXT_CONFIG, "tie_word_embeddings": True})


class PocketModel(torch.nn.Module):
    """Parameters in canonical form (qwick.model.names); of the decay rate the logarithm, so that it keeps its sign."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.config = model_config()
        self.specs = list(tensor_specs(self.config))
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.nn.ParameterDict(
            {_key(spec): torch.nn.Parameter(_first_values(spec, self.config, generator)) for spec in self.specs}
        )
        self._ops = _TrainingOps(chunk_len=64)
        self._rope = RopeTable(self.config)

    def forward(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Logits of the rows that predict an answer's token: [rows, vocab] by the trunk, and by the MTP block."""
        network = Qwen3_5(self.config, Tensors(self._canonical()))
        trunk = network.forward(self._ops, self._step(batch.tokens, batch.trunk_rows))
        assert trunk.hidden is not None
        assert trunk.head is not None
        # Row t of the block: hidden t and token t + 1 -> token t + 2. The last row wraps round; nothing wants it.
        draft = network.draft(self._ops, self._step(np.roll(batch.tokens, -1, axis=1), batch.draft_rows, trunk.hidden))
        assert draft.head is not None
        return trunk.head, draft.head

    def loss(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Mean cross entropy over answer tokens: the trunk's, and the MTP block's."""
        trunk, draft = self(batch)
        return (
            F.cross_entropy(trunk, torch.from_numpy(batch.trunk_targets)),
            F.cross_entropy(draft, torch.from_numpy(batch.draft_targets)),
        )

    def file_tensors(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`weights` (this module's, or their average) by checkpoint name, in the released dtypes."""
        return {_file_name(spec): _to_file(spec, weights[_key(spec)]) for spec in self.specs}

    def _canonical(self) -> dict[str, Tensor]:
        return {
            spec.name: -self.weights[_key(spec)].exp() if _is_decay(spec) else self.weights[_key(spec)]
            for spec in self.specs
        }

    def _step(self, tokens: np.ndarray, wanted_rows: np.ndarray, hidden: Tensor | None = None) -> TorchStep:
        num_runs, length = tokens.shape
        cos, sin = self._rope.angles(np.arange(length))
        batch = Batch(
            token_ids=tokens.reshape(-1),
            rope_cos=np.tile(cos, (num_runs, 1)),
            rope_sin=np.tile(sin, (num_runs, 1)),
            runs=(Run(length, Role.PROMPT, 0, 0, ()),) * num_runs,
            wanted_rows=wanted_rows,
        )
        return _Rectangle(batch, None, hidden=hidden)


class _Rectangle(TorchStep):
    """A step whose runs are all equally long: padding is a reshape, whose gradient costs nothing."""

    def pad(self, x: Tensor) -> Tensor:
        return x.unflatten(0, self.rows.shape)

    def unpad(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1)


class _TrainingOps(TorchOps):
    """The torch ops, the two recurrent ones in a form that is fast on whole runs of equal length (tested equal)."""

    def causal_conv(self, qkv: Tensor, weight: Tensor, layer: int, step: TorchStep) -> Tensor:
        # As a 2-d convolution in channels-last order: four times as fast as a sum over shifted slices.
        x = F.pad(step.pad(qkv).mT.unsqueeze(2), (weight.shape[1] - 1, 0)).contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, weight[:, None, None], groups=weight.shape[0])
        return F.silu(y.squeeze(2).mT.flatten(0, 1))

    def gated_delta(
        self,
        qkv: Tensor,
        a: Tensor,
        b: Tensor,
        decay: Tensor,
        dt_bias: Tensor,
        layer: int,
        heads: DeltaHeads,
        step: TorchStep,
    ) -> Tensor:
        """One chunk from the empty state: (1 + strict_lower(beta k k^T ratio)) delta = beta v; o = q k^T ratio delta"""
        runs, length = step.rows.shape
        q, k, v = (x.unflatten(-1, (-1, heads.k_dim)).transpose(1, 2) for x in _split_qkv(step.pad(qkv), heads))
        q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
        total = (decay * F.softplus(step.pad(a) + dt_bias)).transpose(1, 2).cumsum(-1)  # [runs, num_v, length]
        beta = torch.sigmoid(step.pad(b)).transpose(1, 2)[..., None]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        ratio = (total[..., :, None] - total[..., None, :]).masked_fill(~causal, -torch.inf).exp()
        # v head j uses k head j mod num_k: products per k head, repeated
        kk, qk = (x.repeat(1, heads.num_v // heads.num_k, 1, 1) for x in (k @ k.mT, (q * heads.k_dim**-0.5) @ k.mT))
        delta = torch.linalg.solve_triangular(kk * (beta * ratio), beta * v, upper=False, unitriangular=True)
        return ((qk * ratio) @ delta).transpose(1, 2).reshape(runs * length, -1)


def _split_qkv(qkv: Tensor, heads: DeltaHeads) -> tuple[Tensor, ...]:
    k_size = heads.num_k * heads.k_dim
    return qkv.split([k_size, k_size, heads.num_v * heads.v_dim], dim=-1)


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
