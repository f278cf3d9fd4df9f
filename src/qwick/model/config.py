"""config.json -> ModelConfig, with suspicion: what we do not implement is an error that names the key."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from qwick.errors import ConfigError, UsageError
from qwick.model.config_rope import mrope_section, rope_keys, rotary_dim, yarn_of
from qwick.model.keys import Keys
from qwick.model.yarn import Yarn
from qwick.ops.contract import AttentionHeads, CacheShape, DeltaHeads
from qwick.weights.checkpoint import read_json

MAX_CONFIG_BYTES = 1 << 20
_LINEAR, _FULL = "linear_attention", "full_attention"

# Keys that say nothing about the arithmetic of inference, whatever their value.
_IGNORED = frozenset(
    "_name_or_path architectures attention_dropout bos_token_id chunk_size_feed_forward dtype eos_token_id id2label "
    "image_token_id initializer_range is_encoder_decoder label2id language_model_only mamba_ssm_dtype model_name "
    "output_attentions output_hidden_states pad_token_id problem_type return_dict torch_dtype transformers_version "
    "unsloth_fixed unsloth_version use_cache video_token_id vision_config vision_end_token_id "
    "vision_start_token_id".split()
)

# Keys that must have this value if they are there: anything else is another network.
_FIXED: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "attn_output_gate": True,
    "mlp_only_layers": [],
    "mtp_use_dedicated_embeddings": False,
}

_READ = frozenset(
    "full_attention_interval head_dim hidden_size intermediate_size layer_types linear_conv_kernel_dim "
    "linear_key_head_dim linear_num_key_heads linear_num_value_heads linear_value_head_dim max_position_embeddings "
    "model_type mrope_interleaved mrope_section mtp_num_hidden_layers num_attention_heads num_hidden_layers "
    "num_key_value_heads partial_rotary_factor rms_norm_eps rope_parameters rope_scaling rope_theta text_config "
    "tie_word_embeddings vocab_size".split()
)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One Qwen3.5 text network. Lengths are in elements; `max_position_embeddings` in tokens."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layer_is_attention: tuple[bool, ...]
    attention: AttentionHeads
    delta: DeltaHeads
    conv_kernel: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]
    max_position_embeddings: int
    tie_word_embeddings: bool | None  # None: the file does not say; an lm_head tensor decides
    has_mtp: bool  # the loader turns it off when the checkpoint comes without the block
    yarn: Yarn | None = None  # `max_position_embeddings` is what it makes possible

    @property
    def num_layers(self) -> int:
        return len(self.layer_is_attention)

    @property
    def num_attention_layers(self) -> int:
        """The trunk's, without the MTP block's."""
        return sum(self.layer_is_attention)

    def cache_shape(self, *, num_pages: int, num_slots: int, kv_format: str = "f16") -> CacheShape:
        """The cache this network needs; the MTP block counts as one more attention layer, the last."""
        return CacheShape(
            num_attention_layers=self.num_attention_layers + self.has_mtp,
            num_delta_layers=self.num_layers - self.num_attention_layers,
            attention=self.attention,
            delta=self.delta,
            conv_kernel=self.conv_kernel,
            num_pages=num_pages,
            num_slots=num_slots,
            kv_format=kv_format,
        )

    def with_yarn(self, factor: float) -> "ModelConfig":
        """The same network for contexts `factor` times as long. Raises UsageError where its files say otherwise."""
        if self.yarn is not None:
            if self.yarn.factor == factor:
                return self
            raise UsageError(
                f"the model's files scale its context by {self.yarn.factor:g} already, not by {factor:g}; "
                "leave --yarn out"
            )
        yarn = Yarn(factor, self.max_position_embeddings)
        return replace(self, yarn=yarn, max_position_embeddings=yarn.longest(self.max_position_embeddings))

    def resolved(self, *, tie_word_embeddings: bool, has_mtp: bool) -> "ModelConfig":
        """The same network once the checkpoint's tensors have been seen."""
        return replace(self, tie_word_embeddings=tie_word_embeddings, has_mtp=has_mtp)


def load_config(folder: Path) -> ModelConfig:
    """Read `folder`/config.json. Raises CheckpointError (no such file, not JSON) or ConfigError."""
    return parse_config(read_json(folder / "config.json", MAX_CONFIG_BYTES))


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Check a released (nested) or text-only (flat) config. Raises ConfigError naming the key."""
    text = _text_section(raw)
    _refuse_unknown(raw)
    _refuse_unknown(text)
    keys = Keys(text)
    rope = rope_keys(text)
    longest = keys.size("max_position_embeddings", 262144, limit=1 << 31)
    yarn = yarn_of(rope, longest)
    head_dim = keys.size("head_dim", 256, limit=1024)
    config = ModelConfig(
        vocab_size=keys.size("vocab_size", limit=1 << 24),
        hidden_size=keys.size("hidden_size"),
        intermediate_size=keys.size("intermediate_size"),
        layer_is_attention=_layers(text, keys.size("num_hidden_layers", limit=1024)),
        attention=AttentionHeads(
            num_q=keys.size("num_attention_heads", limit=1024),
            num_kv=keys.size("num_key_value_heads", limit=1024),
            head_dim=head_dim,
            rotary_dim=rotary_dim(rope, head_dim),
        ),
        delta=DeltaHeads(
            num_k=keys.size("linear_num_key_heads", limit=1024),
            num_v=keys.size("linear_num_value_heads", limit=1024),
            k_dim=keys.size("linear_key_head_dim", limit=1024),
            v_dim=keys.size("linear_value_head_dim", limit=1024),
        ),
        conv_kernel=keys.size("linear_conv_kernel_dim", 4, limit=16),
        rms_norm_eps=Keys(text).number("rms_norm_eps", 1e-6, low=0.0, high=1.0),
        rope_theta=rope.number("rope_theta", 1e7, low=1.0, high=1e15),
        mrope_section=mrope_section(rope),
        max_position_embeddings=yarn.longest(longest) if yarn else longest,
        tie_word_embeddings=_tied(raw, text),
        has_mtp=keys.size("mtp_num_hidden_layers", 1, low=0, limit=1) == 1,
        yarn=yarn,
    )
    check_shapes(config)
    return config


def _text_section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    model_type = raw.get("model_type")
    if model_type == "qwen3_5_text":
        return raw
    if model_type != "qwen3_5":
        raise ConfigError(f"config.json: model_type is {model_type!r:.80}; qwick runs 'qwen3_5' and 'qwen3_5_text'")
    if "quantization_config" in raw:
        raise ConfigError("config.json has a quantization_config; this version reads BF16, F16 and F32 checkpoints")
    text = raw.get("text_config")
    if not isinstance(text, dict):
        raise ConfigError("config.json: text_config is missing or not an object")
    text = cast("dict[str, Any]", text)
    if text.get("model_type", "qwen3_5_text") != "qwen3_5_text":
        raise ConfigError(f"config.json: text_config.model_type is {text['model_type']!r:.80}, not 'qwen3_5_text'")
    return text


def _refuse_unknown(section: Mapping[str, Any]) -> None:
    unknown = sorted(str(key) for key in section if key not in _IGNORED | _READ | _FIXED.keys())
    if unknown:
        raise ConfigError(f"config.json has keys that qwick does not know: {', '.join(unknown)[:300]}")
    for key, wanted in _FIXED.items():
        if key in section and section[key] != wanted:
            raise ConfigError(f"config.json: {key} = {section[key]!r:.80}; qwick implements {wanted!r} only")


def _layers(text: Mapping[str, Any], num_layers: int) -> tuple[bool, ...]:
    types = text.get("layer_types")
    if types is None:
        interval = Keys(text).size("full_attention_interval", 4)
        return tuple((i + 1) % interval == 0 for i in range(num_layers))
    if not isinstance(types, list) or any(t not in (_LINEAR, _FULL) for t in cast("list[Any]", types)):
        raise ConfigError(f"config.json: layer_types must be a list of {_LINEAR!r} and {_FULL!r}")
    types = cast("list[str]", types)
    if len(types) != num_layers:
        raise ConfigError(f"config.json: {len(types)} layer_types for num_hidden_layers = {num_layers}")
    return tuple(t == _FULL for t in types)


def _tied(raw: Mapping[str, Any], text: Mapping[str, Any]) -> bool | None:
    """The top level speaks first (as in transformers), then text_config; None when neither does."""
    for section in (raw, text):
        value = section.get("tie_word_embeddings")
        if value is not None:
            if not isinstance(value, bool):
                raise ConfigError(f"config.json: tie_word_embeddings = {value!r:.80} is not true or false")
            return value
    return None


def check_shapes(config: ModelConfig, where: str = "config.json") -> None:
    """Relations between sizes, and the multiples that the kernels read in one go (see kernels/kernels.h)."""
    attention, delta = config.attention, config.delta
    if attention.num_q % attention.num_kv:
        raise ConfigError(f"{where}: {attention.num_q} query heads are not a multiple of {attention.num_kv} kv heads")
    if delta.num_v % delta.num_k:
        raise ConfigError(f"{where}: {delta.num_v} linear value heads are not a multiple of {delta.num_k} key heads")
    sizes = {
        "head_dim": attention.head_dim,
        "rotary dims": attention.rotary_dim,
        "linear_key_head_dim": delta.k_dim,
        "linear_value_head_dim": delta.v_dim,
    }
    for name, value in sizes.items():
        if value % 16:
            raise ConfigError(f"{where}: {name} = {value} is not a multiple of 16, which the kernels need")
    rows = {  # what a matrix is multiplied with
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads * head_dim": attention.num_q * attention.head_dim,
        "linear_num_value_heads * linear_value_head_dim": delta.num_v * delta.v_dim,
    }
    for name, value in rows.items():
        if value % 32:
            raise ConfigError(f"{where}: {name} = {value} is not a multiple of 32, which the kernels need")
    if sum(config.mrope_section) != attention.rotary_dim // 2 and config.mrope_section != (11, 11, 10):
        raise ConfigError(
            f"{where}: mrope_section {list(config.mrope_section)} does not add up to {attention.rotary_dim // 2}"
        )
    for name, total in {
        "parameters of one layer": config.hidden_size * (config.intermediate_size + delta.channels),
        "vocabulary": config.vocab_size * config.hidden_size,
    }.items():
        if total > 1 << 36:
            raise ConfigError(f"{where}: the {name} would take {total:,} elements; is the file damaged?")
