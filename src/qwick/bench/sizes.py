"""The four released sizes as data, so that they can be reckoned with before anything is downloaded.

Source: the config.json of the released checkpoints; their parameter counts are checked in the tests.
"""

from typing import Any

from qwick.model.config import ModelConfig, parse_config

_SHARED = {
    "model_type": "qwen3_5_text",
    "vocab_size": 248_320,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 262_144,
}


def _size(hidden: int, layers: int, ffn: int, heads: tuple[int, int], num_v: int, *, tied: bool) -> dict[str, Any]:
    """The keys of a text config in which the sizes differ; `heads`: query and kv heads of the attention layers."""
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": ffn,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "linear_num_value_heads": num_v,
        "tie_word_embeddings": tied,
    }


_RELEASED = {
    "qwen3.5:0.8b": _size(1024, 24, 3584, (8, 2), 16, tied=True),
    "qwen3.5:2b": _size(2048, 24, 6144, (8, 2), 16, tied=True),
    "qwen3.5:4b": _size(2560, 32, 9216, (16, 4), 32, tied=True),
    "qwen3.5:9b": _size(4096, 32, 12_288, (16, 4), 32, tied=False),
}

SIZES = tuple(_RELEASED)


def size_config(name: str, *, mtp: bool = True) -> ModelConfig:
    """The network of one of `SIZES`. `mtp` False: without the MTP block, as most GGUF files come."""
    return parse_config(_SHARED | _RELEASED[name] | {"mtp_num_hidden_layers": int(mtp)})
