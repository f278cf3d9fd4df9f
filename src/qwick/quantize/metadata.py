"""What a GGUF file says about a model beside its tensors. Keys: llama.cpp, `conversion/qwen.py` and `base.py`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qwick.errors import ConfigError
from qwick.model.config import ModelConfig
from qwick.model.yarn import Yarn
from qwick.quantize.recipes import Recipe
from qwick.quantize.vocabulary import vocabulary_keys
from qwick.text.chat_template import CHATML, ChatTemplate
from qwick.text.json_file import read_object
from qwick.weights.gguf_writer import Value

ARCHITECTURE = "qwen35"
_QUANTIZATION_VERSION = 2  # of ggml's blocks (ggml.h, GGML_QNT_VERSION)
_HUB_SNAPSHOT = re.compile(r"models--(?:.+--)?(?P<name>.+)/snapshots/[0-9a-f]{40}")

# generation_config.json -> general.sampling.*, which llama.cpp takes as defaults
_SAMPLING = {
    "top_k": ("top_k", np.int32),
    "top_p": ("top_p", np.float32),
    "min_p": ("min_p", np.float32),
    "temperature": ("temp", np.float32),
    "repetition_penalty": ("penalty_repeat", np.float32),
}


def folder_metadata(folder: Path, config: ModelConfig, recipe: Recipe, num_parameters: int) -> dict[str, Value]:
    """All keys of a model from its Hugging Face folder. `config` is resolved. Raises CheckpointError."""
    keys: dict[str, Value] = {
        "general.architecture": ARCHITECTURE,
        "general.type": "model",
        "general.name": _model_name(folder),
        "general.size_label": size_label(num_parameters),
        **_sampling_keys(read_object(folder / "generation_config.json")),
        **network_keys(config),
        **file_keys(recipe),
        **vocabulary_keys(folder, config.vocab_size),
    }
    template = ChatTemplate.open(folder, is_own=True)  # nothing is rendered
    if template.source != CHATML:
        keys["tokenizer.chat_template"] = template.source
    return keys


def file_keys(recipe: Recipe) -> dict[str, Value]:
    """The keys that depend on how the tensors are stored."""
    return {"general.quantization_version": _QUANTIZATION_VERSION, "general.file_type": recipe.file_type}


def network_keys(config: ModelConfig) -> dict[str, Value]:
    """What a reader must know of the network itself."""
    attention, delta = config.attention, config.delta
    num_blocks = config.num_layers + config.has_mtp
    is_recurrent = [not is_attention for is_attention in config.layer_is_attention] + [False] * config.has_mtp
    keys: dict[str, Value] = {
        "block_count": num_blocks,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": attention.num_q,
        "attention.head_count_kv": attention.num_kv,
        "attention.key_length": attention.head_dim,
        "attention.value_length": attention.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.recurrent_layers": np.array(is_recurrent),
        "rope.freq_base": config.rope_theta,
        "rope.dimension_count": attention.rotary_dim,
        "rope.dimension_sections": np.array([*config.mrope_section, 0], np.int32),
        "ssm.conv_kernel": config.conv_kernel,
        "ssm.state_size": delta.k_dim,
        "ssm.group_count": delta.num_k,
        "ssm.time_step_rank": delta.num_v,
        "ssm.inner_size": delta.num_v * delta.v_dim,
        "full_attention_interval": _attention_interval(config),
    }
    if config.has_mtp:
        keys["nextn_predict_layers"] = 1
    if config.yarn:
        keys |= _yarn_keys(config.yarn)
    return {f"{ARCHITECTURE}.{key}": value for key, value in keys.items()}


def _yarn_keys(yarn: Yarn) -> dict[str, Value]:
    if yarn.attention_factor not in (None, Yarn(yarn.factor, yarn.original_len).magnitude) or not yarn.truncate:
        raise ConfigError("no key of a GGUF file says attention_factor or truncate of config.json's YaRN")
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": yarn.factor,
        "rope.scaling.original_context_length": yarn.original_len,
        "rope.scaling.yarn_beta_fast": yarn.beta_fast,
        "rope.scaling.yarn_beta_slow": yarn.beta_slow,
    }


def _attention_interval(config: ModelConfig) -> int:
    """Where the first attention layer comes; readers that know `recurrent_layers` look there instead."""
    return config.layer_is_attention.index(True) + 1 if any(config.layer_is_attention) else config.num_layers + 1


def _sampling_keys(generation: Mapping[str, Any]) -> dict[str, Value]:
    keys: dict[str, Value] = {}
    for name, (key, kind) in _SAMPLING.items():
        value = generation.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 31:
            keys[f"general.sampling.{key}"] = kind(value)
    if generation.get("do_sample") is False:
        keys["general.sampling.temp"] = np.float32(0)  # the likeliest token each time
    return keys


def _model_name(folder: Path) -> str:
    """The folder's own name; of a download cache the repository's."""
    path = folder.resolve()
    match = _HUB_SNAPSHOT.search(path.as_posix())
    return match["name"] if match else path.name


def size_label(num_parameters: int) -> str:
    """As in names of files: 873438784 -> `873M`, 2274069824 -> `2.3B`."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if num_parameters > scale or unit == "K":
            value = num_parameters / scale
            return f"{value:.{max(0, 2 - len(str(round(value)).lstrip('0')))}f}{unit}"
    raise AssertionError
