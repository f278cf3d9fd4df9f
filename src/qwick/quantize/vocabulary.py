"""tokenizer.json as the keys of a GGUF file. The same content as llama.cpp's conversion/base.py `get_vocab_base`."""

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, cast

import numpy as np

from qwick.errors import CheckpointError
from qwick.text.json_file import read_object
from qwick.weights.files import read_json
from qwick.weights.gguf_writer import Value

MAX_FILE_BYTES = 256 << 20

# The pre-tokenizer's pattern -> the name that llama.cpp's own code for it has (src/llama-vocab.cpp).
_PRE_TOKENIZERS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": "qwen35",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": "qwen2",
}


class TokenType(IntEnum):
    """llama.h, enum llama_token_type."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4  # an added token that is text
    UNUSED = 5


def vocabulary_keys(folder: Path, vocab_size: int) -> dict[str, Value]:
    """The keys `tokenizer.ggml.*` for a model with `vocab_size` embedding rows.

    Raises CheckpointError when the tokenizer is missing, is no byte-level BPE that llama.cpp knows, or does not fit.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, and a GGUF file holds it; copy it from the model's repository")
    raw = read_json(path, MAX_FILE_BYTES)
    model = _object(raw.get("model"), path, "model")
    if model.get("type") != "BPE":
        raise CheckpointError(f"{path}: a tokenizer of type {model.get('type')!a:.40}; Qwen3.5 has BPE")
    tokens, types = _tokens(raw, model, path, vocab_size)
    ids = {text: token_id for token_id, text in enumerate(tokens) if types[token_id] != TokenType.UNUSED}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _pre_tokenizer(raw, path),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": _merges(model, path),
        **_named_tokens(folder, ids, vocab_size),
    }


def _tokens(
    raw: Mapping[str, Any], model: Mapping[str, Any], path: Path, vocab_size: int
) -> tuple[list[str], "np.ndarray[Any, np.dtype[np.int32]]"]:
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = np.full(vocab_size, TokenType.UNUSED, np.int32)
    for text, token_id in _object(model.get("vocab"), path, "vocab").items():
        tokens[_checked_id(token_id, path, vocab_size)] = text
        types[token_id] = TokenType.NORMAL
    added: object = raw.get("added_tokens", [])
    if not isinstance(added, list):
        raise CheckpointError(f"{path}: added_tokens is not a list")
    for entry in cast("list[object]", added):
        token = _object(entry, path, "an added token")
        text, token_id = token.get("content"), _checked_id(token.get("id"), path, vocab_size)
        if not isinstance(text, str):
            raise CheckpointError(f"{path}: the added token {token_id} has no text")
        tokens[token_id] = text
        # `<|fim_pad|>` and the like are text to Hugging Face; what looks like a control token is one for llama.cpp.
        is_control = token.get("special") is True or (text.startswith("<|") and text.endswith("|>"))
        types[token_id] = TokenType.CONTROL if is_control else TokenType.USER_DEFINED
    return tokens, types


def _merges(model: Mapping[str, Any], path: Path) -> list[str]:
    """As one text each, however the file has them."""
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise CheckpointError(f"{path}: merges is missing or not a list")
    joined: list[str] = []
    for merge in cast("list[object]", merges):
        parts: object = merge.split(" ") if isinstance(merge, str) else merge
        pair = cast("list[object]", parts) if isinstance(parts, list) else []
        texts = [part for part in pair if isinstance(part, str) and part]
        if len(pair) != 2 or len(texts) != 2:
            raise CheckpointError(f"{path}: the merge {merge!a:.80} is no pair of tokens")
        joined.append(" ".join(texts))
    return joined


def _pre_tokenizer(raw: Mapping[str, Any], path: Path) -> str:
    section = _mapping(raw.get("pre_tokenizer"))
    parts = section.get("pretokenizers")
    for part in cast("list[object]", parts) if isinstance(parts, list) else [section]:
        pattern = _mapping(_mapping(part).get("pattern")).get("Regex")
        if isinstance(pattern, str) and pattern in _PRE_TOKENIZERS:
            return _PRE_TOKENIZERS[pattern]
    raise CheckpointError(
        f"{path}: its pre-tokenizer is none that GGUF files can name ({', '.join(_PRE_TOKENIZERS.values())}); "
        "take the tokenizer.json of the original model"
    )


def _named_tokens(folder: Path, ids: Mapping[str, int], vocab_size: int) -> dict[str, Value]:
    """Which tokens begin, end and fill: by name in tokenizer_config.json, else by id in config.json."""
    named = read_object(folder / "tokenizer_config.json")
    config = read_object(folder / "config.json")
    sections = [config, _mapping(config.get("text_config"))]
    keys: dict[str, Value] = {}
    for kind, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        value = named.get(f"{kind}_token")
        text = _mapping(value).get("content", value)
        token_id = ids.get(text) if isinstance(text, str) else None
        candidates = [token_id, *(section.get(f"{kind}_token_id") for section in sections)]
        found = next((c for c in candidates if isinstance(c, int) and 0 <= c < vocab_size), None)
        if found is not None:
            keys[f"tokenizer.ggml.{key}_token_id"] = found
    keys["tokenizer.ggml.add_bos_token"] = named.get("add_bos_token") is True
    if isinstance(add_eos := named.get("add_eos_token"), bool):
        keys["tokenizer.ggml.add_eos_token"] = add_eos
    return keys


def _mapping(value: object) -> dict[str, Any]:
    """Empty for anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _object(value: object, path: Path, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {what} is missing or not an object")
    return cast("dict[str, Any]", value)


def _checked_id(value: object, path: Path, vocab_size: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab_size:
        raise CheckpointError(f"{path}: token id {value!a:.40} is not below the model's vocabulary of {vocab_size}")
    return value
