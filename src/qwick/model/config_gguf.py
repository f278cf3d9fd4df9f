"""The keys of a GGUF file -> ModelConfig, with the same suspicion as config.json.

Names and defaults: llama.cpp `src/models/qwen35.cpp` and `conversion/qwen.py`.
"""

from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from qwick.errors import ConfigError
from qwick.model.config import ModelConfig, check_shapes
from qwick.model.config_rope import read_yarn
from qwick.model.keys import Keys
from qwick.model.yarn import Yarn
from qwick.ops.contract import AttentionHeads, DeltaHeads
from qwick.weights.checkpoint import Checkpoint, Metadata

ARCHITECTURE = "qwen35"
_HEAD_COUNTS = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")

_READ: Final = frozenset(
    "block_count context_length embedding_length feed_forward_length attention.head_count attention.head_count_kv "
    "attention.key_length attention.value_length attention.layer_norm_rms_epsilon attention.recurrent_layers "
    "full_attention_interval nextn_predict_layers rope.dimension_count rope.dimension_sections rope.freq_base "
    "rope.scaling.type rope.scaling.factor ssm.conv_kernel ssm.state_size ssm.group_count ssm.time_step_rank "
    "ssm.inner_size vocab_size".split()
)
_SCALING = "rope.scaling."  # of these the others say nothing where there is no scaling
_YARN: Final = frozenset(
    f"{_SCALING}{key}"
    for key in "type factor attn_factor original_context_length finetuned yarn_beta_fast yarn_beta_slow "
    "yarn_ext_factor yarn_attn_factor".split()
)
# Keys that must have this value if they are there. Any other key that is not known must be 0: the feature is off.
_FIXED: Final[dict[str, Any]] = {"attention.causal": True, "rope.scaling.attn_factor": 1.0}


def parse_gguf_config(checkpoint: Checkpoint) -> ModelConfig:
    """Check the keys of an opened GGUF file. Raises ConfigError naming the key."""
    where, metadata = checkpoint.path.name, checkpoint.metadata
    _check_kind(where, metadata)
    section = {
        key.removeprefix(f"{ARCHITECTURE}."): _plain(value)
        for key, value in metadata.items()
        if key.startswith(f"{ARCHITECTURE}.")
    }
    _refuse_unknown(where, section)
    for key in _HEAD_COUNTS:
        section[key] = _same_everywhere(where, key, section.get(key))
    keys = Keys(section, f"{where}: {ARCHITECTURE}")
    longest = keys.size("context_length", limit=1 << 31)
    yarn = _yarn(keys, longest)
    num_mtp = keys.size("nextn_predict_layers", 0, low=0, limit=1)
    num_layers = keys.size("block_count", low=1 + num_mtp, limit=1024 + num_mtp) - num_mtp
    head_dim = keys.size("attention.key_length", limit=1024)
    if keys.size("attention.value_length", head_dim, limit=1024) != head_dim:
        raise ConfigError(f"{keys.where}: attention.value_length must be attention.key_length, {head_dim}")
    config = ModelConfig(
        vocab_size=_vocab_size(checkpoint, keys),
        hidden_size=keys.size("embedding_length"),
        intermediate_size=keys.size("feed_forward_length"),
        layer_is_attention=_layers(keys, num_layers, num_mtp),
        attention=AttentionHeads(
            num_q=keys.size("attention.head_count", limit=1024),
            num_kv=keys.size("attention.head_count_kv", limit=1024),
            head_dim=head_dim,
            rotary_dim=keys.size("rope.dimension_count", limit=head_dim),
        ),
        delta=_delta(keys),
        conv_kernel=keys.size("ssm.conv_kernel", limit=16),
        rms_norm_eps=keys.number("attention.layer_norm_rms_epsilon", None, low=0.0, high=1.0),
        rope_theta=keys.number("rope.freq_base", 1e7, low=1.0, high=1e15),
        mrope_section=_mrope_section(keys),
        max_position_embeddings=yarn.longest(longest) if yarn else longest,
        tie_word_embeddings=None,  # an output.weight decides
        has_mtp=num_mtp == 1,
        yarn=yarn,
    )
    check_shapes(config, keys.where)
    return config


def _check_kind(where: str, metadata: Metadata) -> None:
    """The other files that lie beside a model have its name, or almost: say what they are."""
    architecture, kind = (_plain(metadata.get(key)) for key in ("general.architecture", "general.type"))
    if kind == "mmproj" or architecture == "clip":
        raise ConfigError(f"{where} is the vision part (mmproj) of a model; give the model's own GGUF file")
    if kind not in (None, "model"):
        raise ConfigError(f"{where} holds a part of a model ({kind!r:.80}); give the model's own GGUF file")
    if architecture != ARCHITECTURE:
        raise ConfigError(
            f"{where} is for the architecture {architecture!r:.80}; qwick runs {ARCHITECTURE!r}, the Qwen3.5 models"
        )


def _plain(value: object) -> object:
    """A value as config.json would have it: arrays as lists, an f32 of 1e-6 as 1e-6 and not 9.99999997e-07."""
    if isinstance(value, np.ndarray):
        return cast("NDArray[Any]", value).tolist()
    if not isinstance(value, float):
        return value
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


def _refuse_unknown(where: str, section: dict[str, object]) -> None:
    for key, value in section.items():
        if key in _FIXED:
            if value != _FIXED[key]:
                raise ConfigError(f"{where}: {key} = {value!r:.80}; qwick implements {_FIXED[key]!r} only")
        elif key not in _READ and not key.startswith(_SCALING) and not _is_off(value):
            raise ConfigError(f"{where}: {ARCHITECTURE}.{key} = {value!r:.80} is a key that qwick does not know")


def _is_off(value: object) -> bool:
    """Some writers list every feature of every architecture, with zeros."""
    return not any(cast("list[Any]", value)) if isinstance(value, list) else value in (0, False, "")


def _same_everywhere(where: str, key: str, value: object) -> object:
    """Some writers give a number for each block."""
    if not isinstance(value, list):
        return value
    values = cast("list[Any]", value)
    if not values or any(other != values[0] for other in values):
        raise ConfigError(f"{where}: {key} differs between blocks; qwick runs networks where all are alike")
    return values[0]


def _yarn(keys: Keys, longest: int) -> Yarn | None:
    """Of the scaling keys, in a file that claims `longest` tokens; any other kind of scaling is refused."""
    kind, factor = keys.get("rope.scaling.type", "none"), keys.get("rope.scaling.factor", 0.0)
    if kind == "yarn":
        return _checked_yarn(keys, longest)
    if kind not in ("none", "linear") or factor not in (0, 1):
        raise ConfigError(
            f"{keys.where}: rope scaling ({kind!r:.40}, factor {factor!r:.40}) is not implemented; "
            "take a file with YaRN, or without, which is right up to the model's own context length"
        )
    return None


def _checked_yarn(keys: Keys, longest: int) -> Yarn:
    unknown = sorted(key for key in keys.names if key.startswith(_SCALING) and key not in _YARN)
    if unknown:
        raise ConfigError(f"{keys.where}: keys of YaRN that qwick does not know: {', '.join(unknown)[:300]}")
    names = "factor", "original_context_length", "yarn_beta_fast", "yarn_beta_slow"
    yarn = read_yarn(keys, *(f"{_SCALING}{name}" for name in names), longest=longest)
    # 1 is llama.cpp's way to say "as usual", the usual factor that of its converter.
    said = keys.number(f"{_SCALING}yarn_attn_factor", 1.0, low=0.0, high=1e3)
    if said != 1 and abs(said - yarn.magnitude) > 1e-4:
        raise ConfigError(f"{keys.where}: yarn_attn_factor = {said}; qwick implements {yarn.magnitude:.4f} only")
    if keys.get(f"{_SCALING}yarn_ext_factor", 1.0) not in (1, -1):
        raise ConfigError(f"{keys.where}: yarn_ext_factor must be 1, the whole ramp")
    return yarn


def _vocab_size(checkpoint: Checkpoint, keys: Keys) -> int:
    table = checkpoint.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise ConfigError(f"{checkpoint.path.name} has no token_embd.weight, a row per token; is this a whole model?")
    rows = table.shape[0]
    limits = Keys({"vocab_size": keys.get("vocab_size", rows), "token_embd.weight's rows": rows}, keys.where)
    if limits.size("vocab_size", limit=1 << 24) != limits.size("token_embd.weight's rows", limit=1 << 24):
        raise ConfigError(f"{keys.where}: vocab_size is not the {rows} rows of token_embd.weight")
    return rows


def _layers(keys: Keys, num_layers: int, num_mtp: int) -> tuple[bool, ...]:
    found = keys.get("attention.recurrent_layers")
    if found is None:
        interval = keys.size("full_attention_interval", 4)
        return tuple((i + 1) % interval == 0 for i in range(num_layers))
    recurrent = cast("list[Any]", found) if isinstance(found, list) else []
    if len(recurrent) != num_layers + num_mtp or any(flag not in (0, 1) for flag in recurrent):
        raise ConfigError(f"{keys.where}: attention.recurrent_layers is not one flag per block")
    if any(recurrent[num_layers:]):
        raise ConfigError(f"{keys.where}: attention.recurrent_layers has the MTP block linear, which it never is")
    return tuple(not flag for flag in recurrent[:num_layers])


def _delta(keys: Keys) -> DeltaHeads:
    num_v, inner = keys.size("ssm.time_step_rank", limit=1024), keys.size("ssm.inner_size")
    if inner % num_v:
        raise ConfigError(f"{keys.where}: ssm.inner_size = {inner} is not a multiple of its {num_v} heads")
    sizes = Keys({"inner_size / time_step_rank": inner // num_v}, keys.where)
    return DeltaHeads(
        num_k=keys.size("ssm.group_count", limit=1024),
        num_v=num_v,
        k_dim=keys.size("ssm.state_size", limit=1024),
        v_dim=sizes.size("inner_size / time_step_rank", limit=1024),
    )


def _mrope_section(keys: Keys) -> tuple[int, int, int]:
    found = keys.get("rope.dimension_sections")
    sections = cast("list[Any]", found) if isinstance(found, list) else []
    if len(sections) not in (3, 4) or any(sections[3:]):
        raise ConfigError(f"{keys.where}: rope.dimension_sections must be three numbers, and maybe a 0")
    names = [f"rope.dimension_sections[{i}]" for i in range(3)]
    sizes = Keys(dict(zip(names, sections, strict=False)), keys.where)
    t, h, w = (sizes.size(name, low=0, limit=512) for name in names)
    return t, h, w
