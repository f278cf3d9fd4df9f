"""What a model is and what it costs, from the headers of its files; no weights are read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from qwick.cache.spec import CacheSpec
from qwick.model.config import ModelConfig
from qwick.model.load import memory_format
from qwick.model.source import Source, open_source
from qwick.sampling.defaults import from_generation_config, from_gguf, with_defaults
from qwick.text.chat_template import OFFICIAL, ChatTemplate
from qwick.text.json_file import read_object
from qwick.weights.checkpoint import Metadata

# `general.file_type` of a GGUF file: how its maker calls the mixture (llama.cpp `include/llama.h`, llama_ftype).
_MIXTURES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 25: "IQ4_NL", 30: "IQ4_XS",
    32: "BF16", 38: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor of the network: where it is in the files, and how memory will hold it."""

    name: str
    file_name: str
    dtype: str
    shape: tuple[int, ...]
    family: str
    file_bytes: int
    memory_bytes: int
    is_matrix: bool


@dataclass(frozen=True, slots=True)
class TokenCost:
    """What decoding one token after `depth` others takes, for one sequence.

    weight_bytes   read: every matrix once, one row of the embedding
    state_bytes    read and written: recurrent and convolution states
    kv_bytes       read: keys and values of `depth` tokens, in f16
    multiply_adds  of matrices, attention and the delta rule; norms and activations are not counted
    """

    depth: int
    weight_bytes: int
    state_bytes: int
    kv_bytes: int
    multiply_adds: int

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.state_bytes + self.kv_bytes


@dataclass(frozen=True)
class Description:
    """A model as its files describe it.

    mixture   what its maker calls the format: `BF16`, `Q4_K_M`
    sampling  the defaults of the mode that the model takes when not told
    files     name -> bytes
    """

    path: Path
    mixture: str
    config: ModelConfig
    tensors: tuple[TensorRow, ...]
    files: Mapping[str, int]
    template_sha256: str
    can_think: bool
    thinks_by_default: bool
    sampling: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        """Of the whole network, the MTP block included."""
        return sum(prod(row.shape) for row in self.tensors)

    @property
    def file_bytes(self) -> int:
        return sum(row.file_bytes for row in self.tensors)

    @property
    def memory_bytes(self) -> int:
        return sum(row.memory_bytes for row in self.tensors)

    @property
    def template_is_official(self) -> bool:
        return self.template_sha256 in OFFICIAL

    @cached_property
    def cache(self) -> CacheSpec:
        """Of one token and one sequence, the MTP block's layer included."""
        return CacheSpec(self.config.cache_shape(num_pages=0, num_slots=0))

    @property
    def families(self) -> dict[str, dict[str, int]]:
        """Kernel family -> tensors, parameters, bytes in memory."""
        families: dict[str, dict[str, int]] = {}
        for row in self.tensors:
            family = families.setdefault(row.family, {"tensors": 0, "parameters": 0, "bytes": 0})
            family["tensors"] += 1
            family["parameters"] += prod(row.shape)
            family["bytes"] += row.memory_bytes
        return families

    def token_cost(self, depth: int) -> TokenCost:
        """Without drafting: the MTP block rests."""
        config = self.config.resolved(tie_word_embeddings=bool(self.config.tie_word_embeddings), has_mtp=False)
        cache = CacheSpec(config.cache_shape(num_pages=0, num_slots=0))
        trunk = [row for row in self.tensors if not row.name.startswith("mtp.")]
        if not config.tie_word_embeddings:  # else it is the head too
            trunk = [row for row in trunk if row.name != "embed_tokens"]
        delta, attention = config.delta, config.attention
        per_delta_layer = 3 * delta.num_v * delta.k_dim * delta.v_dim + delta.channels * config.conv_kernel
        num_delta = config.num_layers - config.num_attention_layers
        attended = config.num_attention_layers * attention.num_q * attention.head_dim * 2 * depth
        return TokenCost(
            depth=depth,
            weight_bytes=sum(row.memory_bytes for row in trunk),
            state_bytes=2 * cache.state_bytes,
            kv_bytes=cache.token_bytes * depth,
            multiply_adds=sum(prod(row.shape) for row in trunk if row.is_matrix)
            + num_delta * per_delta_layer
            + attended,
        )


def describe(path: Path) -> Description:
    """The model in a folder or GGUF file. Raises UsageError, CheckpointError, ConfigError."""
    with open_source(path) as source:
        template = ChatTemplate.open(path, source.metadata, is_own=True)  # nothing is rendered
        thinks = template.thinks_by_default(source.config.hidden_size)
        advice = sampling_advice(path, source.metadata)
        return Description(
            path=path,
            mixture=_mixture(source),
            config=source.config,
            tensors=_rows(source),
            files=_files(path, source),
            template_sha256=template.sha256,
            can_think=template.can_think,
            thinks_by_default=thinks,
            sampling=_sampling(advice, source.config.hidden_size, think=thinks),
        )


def sampling_advice(path: Path, metadata: Metadata) -> dict[str, Any]:
    """What a model's own files say about sampling, by our names. Raises CheckpointError."""
    if metadata:
        return from_gguf(metadata, path.name)
    file = path / "generation_config.json"
    return from_generation_config(read_object(file), str(file))


def _rows(source: Source) -> tuple[TensorRow, ...]:
    rows: list[TensorRow] = []
    for spec in source.specs:
        info = source.info(spec)
        family = memory_format(spec, info.dtype, None).family
        memory = family.num_bytes(prod(spec.shape[:-1]), spec.shape[-1])
        name = source.files[spec.name]
        rows.append(
            TensorRow(spec.name, name, info.dtype, spec.shape, family.value, info.num_bytes, memory, spec.matrix)
        )
    return tuple(rows)


def _mixture(source: Source) -> str:
    """As the file says; where it does not, the format that most bytes are in."""
    said = source.metadata.get("general.file_type")
    if isinstance(said, int) and said in _MIXTURES:
        return _MIXTURES[said]
    sizes: dict[str, int] = {}
    for spec in source.specs:
        info = source.info(spec)
        sizes[info.dtype] = sizes.get(info.dtype, 0) + info.num_bytes
    return max(sizes, key=lambda dtype: sizes[dtype])


def _sampling(advice: Mapping[str, Any], hidden_size: int, *, think: bool) -> dict[str, Any]:
    params = asdict(with_defaults({}, advice, hidden_size, think=think))
    left_out = ("seed", "max_tokens", "stop_token_ids", "logit_bias")
    return {name: value for name, value in params.items() if name not in left_out}


def _files(path: Path, source: Source) -> dict[str, int]:
    if path.is_dir():
        return {file.name: file.stat().st_size for file in sorted(path.iterdir()) if file.is_file()}
    return {path.name: path.stat().st_size}
