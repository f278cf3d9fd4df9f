"""Checkpoint tensors -> canonical tensors, by table.

The canonical form is the GGUF one (design.md): V heads of the linear layers *tiled* (v head j uses k head j mod nk; the
files group them), norm weights as full factors, `A_log` as the decay rate -exp(A_log). Source of names and shapes:
transformers 5.23 `models/qwen3_5`; the released headers.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qwick.errors import CheckpointError
from qwick.model.config import ModelConfig
from qwick.ops.contract import DeltaHeads, Float32

# Released; text-only fine-tunes; older multimodal exports; bare trunks.
PREFIXES = ("model.language_model.", "model.", "language_model.model.", "language_model.", "")
_HEADS = ("lm_head.weight", "language_model.lm_head.weight", "model.lm_head.weight")
_MTP_PREFIXES = ("mtp.", "model.mtp.", "language_model.mtp.", "model.language_model.mtp.")
_VISION = ("model.visual.", "visual.", "vision_tower.", "model.vision_tower.")  # read by a later version


class Change(Enum):
    """What happens to the values between file and memory (vectors only)."""

    NONE = "none"
    PLUS_ONE = "1 + w"
    NEG_EXP = "-exp(x)"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the network.

    name       canonical name, e.g. `layers.0.linear_attn.in_proj_qkv`
    file_name  after the checkpoint's prefix, e.g. `layers.0.linear_attn.in_proj_qkv.weight`
    shape      in the file
    row_order, col_order   canonical row i is file row row_order[i]; None keeps the order
    matrix     a [n, k] weight that may be stored in any format; otherwise an f32 vector
    coarse     may follow `--format` (the gates in_proj_a / in_proj_b may not: tiny, and errors there accumulate)
    """

    name: str
    file_name: str
    shape: tuple[int, ...]
    change: Change = Change.NONE
    row_order: NDArray[np.int64] | None = None
    col_order: NDArray[np.int64] | None = None
    matrix: bool = False
    coarse: bool = True

    def to_canonical(self, values: Float32) -> Float32:
        """A whole tensor from the file's form to memory's (matrices are loaded in windows instead)."""
        values = values if self.row_order is None else values[self.row_order]
        values = np.ascontiguousarray(values if self.col_order is None else values[:, self.col_order])
        if self.change is Change.PLUS_ONE:
            return values + np.float32(1)
        if self.change is Change.NEG_EXP:
            return -np.exp(values.astype(np.float64)).astype(np.float32)  # a library's f32 exp may be off by an ulp
        return values

    def to_file(self, values: Float32) -> Float32:
        """The inverse of loading, for whole tensors (saving a trained or adapted model)."""
        if self.change is Change.PLUS_ONE:
            values = values - np.float32(1)
        elif self.change is Change.NEG_EXP:
            values = np.log(-values.astype(np.float64)).astype(np.float32)
        if self.row_order is not None:
            values = values[np.argsort(self.row_order)]
        if self.col_order is not None:
            values = values[:, np.argsort(self.col_order)]
        return np.ascontiguousarray(values).reshape(self.shape)


def v_head_order(heads: DeltaHeads) -> NDArray[np.int64]:
    """Grouped to tiled: canonical v head c is file head (c mod nk) * (nv / nk) + c // nk."""
    ratio = heads.num_v // heads.num_k
    c = np.arange(heads.num_v)
    return (c % heads.num_k) * ratio + c // heads.num_k


@lru_cache(maxsize=8)  # the layers share one order: a hostile config asks for 1,024 layers of 1,024 heads
def _v_rows(heads: DeltaHeads, offset: int = 0) -> NDArray[np.int64]:
    """Row indices of the v heads in canonical order, after `offset` rows that stay."""
    rows = offset + (v_head_order(heads)[:, None] * heads.v_dim + np.arange(heads.v_dim)).reshape(-1)
    return np.concatenate([np.arange(offset), rows])


def tensor_specs(config: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor of the network in canonical order, as the config demands it."""
    hidden = config.hidden_size
    yield TensorSpec("embed_tokens", "embed_tokens.weight", (config.vocab_size, hidden), matrix=True)
    for i, is_attention in enumerate(config.layer_is_attention):
        yield from _layer(config, f"layers.{i}", is_attention=is_attention)
    yield _norm("norm", hidden)
    if not config.tie_word_embeddings:
        yield TensorSpec("lm_head", "lm_head.weight", (config.vocab_size, hidden), matrix=True)
    if config.has_mtp:
        yield TensorSpec("mtp.fc", "mtp.fc.weight", (hidden, 2 * hidden), matrix=True)
        yield _norm("mtp.pre_fc_norm_embedding", hidden)
        yield _norm("mtp.pre_fc_norm_hidden", hidden)
        yield from _layer(config, "mtp.layers.0", is_attention=True)
        yield _norm("mtp.norm", hidden)


def _norm(name: str, size: int) -> TensorSpec:
    return TensorSpec(name, f"{name}.weight", (size,), change=Change.PLUS_ONE)


def _matrix(name: str, rows: int, cols: int) -> TensorSpec:
    return TensorSpec(name, f"{name}.weight", (rows, cols), matrix=True)


def _layer(config: ModelConfig, name: str, *, is_attention: bool) -> Iterator[TensorSpec]:
    hidden, ffn = config.hidden_size, config.intermediate_size
    yield _norm(f"{name}.input_layernorm", hidden)
    yield from _attention(config, f"{name}.self_attn") if is_attention else _delta(config, f"{name}.linear_attn")
    yield _norm(f"{name}.post_attention_layernorm", hidden)
    yield _matrix(f"{name}.mlp.gate_proj", ffn, hidden)
    yield _matrix(f"{name}.mlp.up_proj", ffn, hidden)
    yield _matrix(f"{name}.mlp.down_proj", hidden, ffn)


def _attention(config: ModelConfig, name: str) -> Iterator[TensorSpec]:
    hidden, heads = config.hidden_size, config.attention
    yield _matrix(f"{name}.q_proj", 2 * heads.num_q * heads.head_dim, hidden)  # per head: query rows, then gate rows
    yield _matrix(f"{name}.k_proj", heads.num_kv * heads.head_dim, hidden)
    yield _matrix(f"{name}.v_proj", heads.num_kv * heads.head_dim, hidden)
    yield _matrix(f"{name}.o_proj", hidden, heads.num_q * heads.head_dim)
    yield _norm(f"{name}.q_norm", heads.head_dim)
    yield _norm(f"{name}.k_norm", heads.head_dim)


def _delta(config: ModelConfig, name: str) -> Iterator[TensorSpec]:
    hidden, heads = config.hidden_size, config.delta
    k_size, v_size = heads.num_k * heads.k_dim, heads.num_v * heads.v_dim
    order = v_head_order(heads)
    v_rows, qkv_rows = _v_rows(heads), _v_rows(heads, offset=2 * k_size)
    yield TensorSpec(
        f"{name}.in_proj_qkv", f"{name}.in_proj_qkv.weight", (heads.channels, hidden), row_order=qkv_rows, matrix=True
    )
    yield TensorSpec(f"{name}.in_proj_z", f"{name}.in_proj_z.weight", (v_size, hidden), row_order=v_rows, matrix=True)
    for gate in ("in_proj_b", "in_proj_a"):
        yield TensorSpec(
            f"{name}.{gate}", f"{name}.{gate}.weight", (heads.num_v, hidden), row_order=order, matrix=True, coarse=False
        )
    yield TensorSpec(
        f"{name}.conv1d", f"{name}.conv1d.weight", (heads.channels, 1, config.conv_kernel), row_order=qkv_rows
    )
    yield TensorSpec(f"{name}.dt_bias", f"{name}.dt_bias", (heads.num_v,), row_order=order)
    yield TensorSpec(f"{name}.A_log", f"{name}.A_log", (heads.num_v,), change=Change.NEG_EXP, row_order=order)
    yield TensorSpec(f"{name}.norm", f"{name}.norm.weight", (heads.v_dim,))  # plain, not zero-centred
    yield TensorSpec(f"{name}.out_proj", f"{name}.out_proj.weight", (hidden, v_size), col_order=v_rows, matrix=True)


def trunk_prefix(names: Collection[str]) -> str:
    """Which of the published prefixes a checkpoint uses. Raises CheckpointError when none fits."""
    for prefix in PREFIXES:
        if f"{prefix}embed_tokens.weight" in names:
            return prefix
    raise CheckpointError(
        "no embed_tokens.weight under any known prefix "
        f"({', '.join(repr(p) for p in PREFIXES)}); is this a Qwen3.5 checkpoint?"
    )


def file_names(specs: Collection[TensorSpec], names: Collection[str]) -> dict[str, str]:
    """Canonical name -> name in the file.

    Raises CheckpointError naming tensors that are missing, or that nothing would read.
    """
    prefix = trunk_prefix(names)
    found: dict[str, str] = {}
    missing: list[str] = []
    for spec in specs:
        candidates = _candidates(spec, prefix)
        match = next((c for c in candidates if c in names), None)
        if match is None:
            missing.append(candidates[0])
        else:
            found[spec.name] = match
    if missing:
        raise CheckpointError(f"{len(missing)} tensors are missing: {_listed(missing)}")
    unmapped = sorted(set(names) - set(found.values()) - {n for n in names if _known_unread(n)})
    if unmapped:
        raise CheckpointError(f"{len(unmapped)} tensors have no place in this network: {_listed(unmapped)}")
    return found


def has_mtp(names: Collection[str]) -> bool:
    """Whether the checkpoint carries an MTP block (all of it: `file_names` finds missing parts)."""
    return any(n.startswith(_MTP_PREFIXES) for n in names)


def has_head(names: Collection[str]) -> bool:
    """Whether the checkpoint carries a head of its own."""
    return any(n in names for n in _HEADS)


def _candidates(spec: TensorSpec, prefix: str) -> list[str]:
    if spec.name == "lm_head":
        return list(_HEADS)
    if spec.name.startswith("mtp."):
        return [p + spec.file_name.removeprefix("mtp.") for p in _MTP_PREFIXES]
    return [prefix + spec.file_name]


def _known_unread(name: str) -> bool:
    """Vision towers (a later version reads them), a tied model's copy of its embedding, rotary tables."""
    return name.startswith(_VISION) or name in _HEADS or name.endswith("rotary_emb.inv_freq")


def _listed(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
