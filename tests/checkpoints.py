"""Hard-random checkpoints: random weights of which every part matters, in the released file layout.

The library's own initialisation hides mistakes: the state is forgotten within a token, all zero-centred norms are 0,
logits are flat. Here (design page, "Hard-random checkpoints"): half-lives of the delta heads spread log-uniformly over
1 to 5,000 tokens; norm factors 1 + 0.3 N(0, 1); convolution taps and dt_bias large; q/k norms scaled until attention is
peaked; head scaled to logits of standard deviation 3. `tests/test_checkpoints.py` measures each in transformers.

numpy only; a tensor's values depend on the seed and its name alone (Philox), so shards and prefixes do not change them.
"""

import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Config = dict[str, Any]  # a config.json in the released layout: text_config nested
Draw = Callable[[np.random.Generator, int], NDArray[np.float32]]  # (stream, count) -> the next values, flat

RELEASED_PREFIX = "model.language_model."
MAX_HALF_LIFE = 5000.0  # tokens
LOGIT_STD = 3.0
NORM_STD = 0.3
QK_FACTOR = 1.8  # scores get the standard deviation QK_FACTOR^2: about 3, a handful of keys win
CHUNK_LEN = 1 << 22  # values drawn at once; part of the definition of the values
FILE_BYTES = {"F32": 4, "BF16": 2}


def write_checkpoint(
    folder: Path,
    config: Config,
    seed: int,
    dtype: str = "F32",
    prefix: str = RELEASED_PREFIX,
    shards: int = 1,
    mtp: bool = True,
) -> Path:
    """Write config.json and safetensors of `dtype` ("F32" or "BF16"; A_log and the gated norm stay F32) -> `folder`.

    `prefix` stands before `embed_tokens.weight` and so on. `shards` > 1 makes that many files and an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch_dtype = {"F32": "float32", "BF16": "bfloat16"}[dtype]
    text = config.get("text_config", config)
    written = {**config, "text_config": {**text, "dtype": torch_dtype}} if text is not config else {**config}
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    tensors = [t.stored(dtype) for t in planned_tensors(text, seed, prefix, mtp=mtp)]
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, seed)
        return folder
    weight_map: dict[str, str] = {}
    for i, part in enumerate(_split(tensors, shards), 1):
        name = f"model.safetensors-{i:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / name, part, seed)
        weight_map |= {tensor.name: name for tensor in part}
    index = {"metadata": {"total_size": sum(t.num_bytes for t in tensors)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return folder


# --- configs ---------------------------------------------------------------------------------------------------------


def small_config(**overrides: Any) -> Config:
    """A config of a few hundred thousand weights: (L, L, L, F), V/K ratio 2, tied. `overrides` are text_config keys."""
    text = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
    } | overrides
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "num_position_embeddings": 16}
    return _config(text, vision)


def yarn_config(config: Config, factor: Any, **keys: Any) -> Config:
    """A released config with YaRN, as the cards of 4B and 9B advise; `keys` are rope_parameters."""
    text = config["text_config"]
    rope = text["rope_parameters"] | {"rope_type": "yarn", "factor": factor}
    rope |= {"original_max_position_embeddings": text["max_position_embeddings"]} | keys
    return config | {"text_config": text | {"rope_parameters": rope}}


def text_only(config: Config) -> Config:
    """The flat config of a text-only fine-tune (model_type qwen3_5_text); its prefix is usually `model.`."""
    return {"architectures": ["Qwen3_5ForCausalLM"], **config["text_config"]}


def _released(
    hidden: int,
    layers: int,
    ffn: int,
    heads: tuple[int, int],
    num_v: int,
    tied: bool,
    vision: tuple[int, int, int, int],
) -> Config:
    text = {
        "vocab_size": 248320,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "head_dim": 256,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": num_v,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "max_position_embeddings": 262144,
        "tie_word_embeddings": tied,
        "eos_token_id": 248044,
    }
    keys = ("depth", "hidden_size", "num_heads", "intermediate_size")
    return _config(text, dict(zip(keys, vision, strict=True)))


def _config(text: Config, vision: Config) -> Config:
    """Both sections completed with what all sizes share, in the released layout."""
    every = text.get("full_attention_interval", 4)
    kinds = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(text["num_hidden_layers"])]
    factor = text.pop("partial_rotary_factor", 0.25)
    half = int(text["head_dim"] * factor) // 2
    shared = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_output_gate": True,
        "dtype": "bfloat16",
        "full_attention_interval": every,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "layer_types": kinds,
        "linear_conv_kernel_dim": 4,
        "mamba_ssm_dtype": "float32",
        "mlp_only_layers": [],
        "model_type": "qwen3_5_text",
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "mrope_interleaved": True,
            "mrope_section": [(half + 2) // 3, (half + 1) // 3, half // 3],
            "partial_rotary_factor": factor,
            "rope_theta": 10000000,
            "rope_type": "default",
        },
        "use_cache": True,
    }
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "image_token_id": 248056,
        "model_type": "qwen3_5",
        "text_config": shared | text,
        "tie_word_embeddings": text["tie_word_embeddings"],
        "transformers_version": "4.57.0.dev0",
        "video_token_id": 248057,
        "vision_config": {
            "deepstack_visual_indexes": [],
            "hidden_act": "gelu_pytorch_tanh",
            "in_channels": 3,
            "initializer_range": 0.02,
            "model_type": "qwen3_5",
            "num_position_embeddings": 2304,
            "out_hidden_size": text["hidden_size"],
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        }
        | vision,
        "vision_end_token_id": 248054,
        "vision_start_token_id": 248053,
    }


RELEASED: dict[str, Config] = {
    "0.8b": _released(1024, 24, 3584, (8, 2), 16, True, (12, 768, 12, 3072)),
    "2b": _released(2048, 24, 6144, (8, 2), 16, True, (24, 1024, 16, 4096)),
    "4b": _released(2560, 32, 9216, (16, 4), 32, True, (24, 1024, 16, 4096)),
    "9b": _released(4096, 32, 12288, (16, 4), 32, False, (27, 1152, 16, 4304)),
    "27b": _released(5120, 64, 17408, (24, 4), 48, False, (27, 1152, 16, 4304)),
}


# --- tensors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor to be drawn. `stream` names its random stream; `keeps_f32` is stored F32 even in BF16 files."""

    name: str
    shape: tuple[int, ...]
    draw: Draw
    stream: str
    dtype: str = "F32"
    keeps_f32: bool = False

    def stored(self, dtype: str) -> "Planned":
        kept = "F32" if self.keeps_f32 else dtype
        return Planned(self.name, self.shape, self.draw, self.stream, kept, self.keeps_f32)

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * FILE_BYTES[self.dtype]

    def chunks(self, seed: int) -> Iterator[NDArray[Any]]:
        """The values as stored (float32, or uint16 bf16 bits), flat, a few million at a time."""
        stream = _stream(seed, self.stream)
        count = math.prod(self.shape)
        for begin in range(0, count, CHUNK_LEN):
            values = self.draw(stream, min(CHUNK_LEN, count - begin))
            yield values if self.dtype == "F32" else bf16_bits(values)


def planned_tensors(text: Config, seed: int, prefix: str, *, mtp: bool = True) -> list[Planned]:
    """All tensors of the text network `text` (the text_config), in the order of the file."""
    hidden, vocab, tied = text["hidden_size"], text["vocab_size"], text["tie_word_embeddings"]
    head_std = LOGIT_STD / math.sqrt(hidden * (1 + NORM_STD**2))
    drawn = [
        ("embed_tokens.weight", (vocab, hidden), _normal(head_std if tied else 1.0)),
        *(
            (f"layers.{i}.{n}", shape, draw)
            for i in range(text["num_hidden_layers"])
            for n, shape, draw in _layer(text, i, seed)
        ),
        ("norm.weight", (hidden,), _normal(NORM_STD)),
    ]
    tensors = [
        Planned(prefix + name, shape, draw, name, keeps_f32=name.endswith(("A_log", "linear_attn.norm.weight")))
        for name, shape, draw in drawn
    ]
    if not tied:
        tensors.append(Planned("lm_head.weight", (vocab, hidden), _normal(head_std), "lm_head.weight"))
    if mtp:
        block = [
            ("fc.weight", (hidden, 2 * hidden), _normal((2 * hidden) ** -0.5)),
            *((f"layers.0.{n}", shape, draw) for n, shape, draw in [*_mlp(text), *_attention(text)]),
            *(
                (f"{n}.weight", (hidden,), _normal(NORM_STD))
                for n in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")
            ),
        ]
        tensors += [Planned(f"mtp.{name}", shape, draw, f"mtp.{name}") for name, shape, draw in block]
    return tensors


Drawn = tuple[str, tuple[int, ...], Draw]


def _layer(text: Config, index: int, seed: int) -> list[Drawn]:
    is_linear = text["layer_types"][index] == "linear_attention"
    return [*_mlp(text), *(_delta(text, index, seed) if is_linear else _attention(text))]


def _mlp(text: Config) -> list[Drawn]:
    """The MLP and the two norms that every layer has."""
    hidden, ffn = text["hidden_size"], text["intermediate_size"]
    return [
        ("input_layernorm.weight", (hidden,), _normal(NORM_STD)),
        ("post_attention_layernorm.weight", (hidden,), _normal(NORM_STD)),
        _matrix("mlp.gate_proj", ffn, hidden),
        _matrix("mlp.up_proj", ffn, hidden),
        _matrix("mlp.down_proj", hidden, ffn),
    ]


def _attention(text: Config) -> list[Drawn]:
    hidden, dim = text["hidden_size"], text["head_dim"]
    q_size, kv_size = text["num_attention_heads"] * dim, text["num_key_value_heads"] * dim
    return [
        _matrix("self_attn.q_proj", 2 * q_size, hidden),
        _matrix("self_attn.k_proj", kv_size, hidden),
        _matrix("self_attn.v_proj", kv_size, hidden),
        _matrix("self_attn.o_proj", hidden, q_size),
        # Zero-centred as stored: the factor is QK_FACTOR * (1 + 0.3 N).
        ("self_attn.q_norm.weight", (dim,), _normal(QK_FACTOR * NORM_STD, QK_FACTOR - 1)),
        ("self_attn.k_norm.weight", (dim,), _normal(QK_FACTOR * NORM_STD, QK_FACTOR - 1)),
    ]


def _delta(text: Config, index: int, seed: int) -> list[Drawn]:
    hidden, num_v, v_dim = text["hidden_size"], text["linear_num_value_heads"], text["linear_value_head_dim"]
    v_size = num_v * v_dim
    channels = 2 * text["linear_num_key_heads"] * text["linear_key_head_dim"] + v_size
    dt_bias, a_log = _decay(text, index, seed)
    return [
        _matrix("linear_attn.in_proj_qkv", channels, hidden),
        _matrix("linear_attn.in_proj_z", v_size, hidden),
        _matrix("linear_attn.in_proj_b", num_v, hidden),
        ("linear_attn.in_proj_a.weight", (num_v, hidden), _normal(0.5 * hidden**-0.5)),
        ("linear_attn.conv1d.weight", (channels, 1, text["linear_conv_kernel_dim"]), _normal(0.7)),
        ("linear_attn.dt_bias", (num_v,), lambda _, __: dt_bias),
        ("linear_attn.A_log", (num_v,), lambda _, __: a_log),
        ("linear_attn.norm.weight", (v_dim,), _normal(NORM_STD, 1.0)),
        _matrix("linear_attn.out_proj", hidden, v_size),
    ]


def half_lives(text: Config, seed: int) -> NDArray[np.float64]:
    """[linear layers, v heads] in tokens: log-uniform over 1 .. MAX_HALF_LIFE, stratified over the whole network."""
    num_layers, num_v = text["layer_types"].count("linear_attention"), text["linear_num_value_heads"]
    count = num_layers * num_v
    ranks = _stream(seed, "half_lives").permutation(count)
    return np.exp(math.log(MAX_HALF_LIFE) * (ranks + 0.5) / count).reshape(num_layers, num_v)


def _decay(text: Config, index: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """dt_bias and A_log of a layer such that exp(-exp(A_log) softplus(dt_bias)) halves the state in its half-life."""
    linear_index = text["layer_types"][:index].count("linear_attention")
    wanted = half_lives(text, seed)[linear_index]
    dt_bias = _stream(seed, f"dt_bias.{index}").uniform(-3, 1, len(wanted)).astype(np.float32)
    dt_bias = (bf16_bits(dt_bias).astype(np.uint32) << 16).view(np.float32)  # as a BF16 file will hold it
    rate = math.log(2) / wanted
    return dt_bias, np.log(rate / np.log1p(np.exp(dt_bias.astype(np.float64)))).astype(np.float32)


def _matrix(name: str, rows: int, cols: int) -> Drawn:
    """Keeps the variance of its input."""
    return f"{name}.weight", (rows, cols), _normal(cols**-0.5)


def _normal(std: float, mean: float = 0.0) -> Draw:
    def draw(stream: np.random.Generator, count: int) -> NDArray[np.float32]:
        values = stream.standard_normal(count, np.float32)
        values *= np.float32(std)
        if mean:
            values += np.float32(mean)
        return values

    return draw


def _stream(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))


# --- files -----------------------------------------------------------------------------------------------------------


def bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Finite float32 -> bf16 bits, rounded to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: list[Planned], seed: int) -> None:
    with path.open("wb") as file:
        write_header(file, tensors)
        for tensor in tensors:
            for values in tensor.chunks(seed):
                file.write(values.data)


def write_header(file: BinaryIO, tensors: list[Planned]) -> None:
    """What stands before the values in a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.num_bytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)


def _split(tensors: list[Planned], parts: int) -> list[list[Planned]]:
    """Consecutive parts of about equal bytes, none empty."""
    total = sum(t.num_bytes for t in tensors)
    shards: list[list[Planned]] = [[]]
    done = 0
    for left, tensor in zip(range(len(tensors), 0, -1), tensors, strict=True):
        missing = parts - len(shards)
        if shards[-1] and missing and (done >= total * len(shards) / parts or left <= missing):
            shards.append([])
        shards[-1].append(tensor)
        done += tensor.num_bytes
    return shards
