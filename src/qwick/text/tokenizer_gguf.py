"""The tokenizer of a GGUF file's metadata: the same as the tokenizer.json that the file was made of.

Keys: github.com/ggml-org/ggml, docs/gguf.md. What the keys leave out (NFC, the byte-level decoder, which look-alikes of
control tokens are text) is as in the released tokenizer.json.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from qwick.errors import CheckpointError
from qwick.weights.checkpoint import Metadata, Strings

if TYPE_CHECKING:
    import tokenizers

_KEY = "tokenizer.ggml."
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5  # values of token_type

# What llama.cpp calls a pre-tokenizer -> the pattern of its tokenizer.json. They differ in combining marks.
PATTERNS: Final = {
    "qwen35": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
# Converters take whatever is written <|so|> for a control token, and some re-uploads more than that. Of these the
# released tokenizer.json says that they are text; answers are taken apart by some of them.
TEXT_TOKENS: Final = frozenset(
    "<|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|> "
    "<think> </think> <tool_call> </tool_call> <tool_response> </tool_response>".split()
)


def backend_of_gguf(path: Path, metadata: Metadata) -> "tokenizers.Tokenizer":
    """0.6 s for the released vocabulary, most of it in the library. Raises CheckpointError naming the key."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    kind, pre = metadata.get(f"{_KEY}model"), metadata.get(f"{_KEY}pre", "default")
    if kind is None:
        raise CheckpointError(f"{path}: has no tokenizer; take a file that was converted with the model's vocabulary")
    if not isinstance(kind, str) or kind != "gpt2":
        raise CheckpointError(f"{path}: {_KEY}model is {kind!r:.80}; Qwen's tokenizers are 'gpt2', byte-level BPE")
    pattern = PATTERNS.get(pre) if isinstance(pre, str) else None
    if pattern is None:
        raise CheckpointError(f"{path}: {_KEY}pre is {pre!r:.80}; qwick knows {', '.join(map(repr, PATTERNS))}")
    with _no_collection():
        vocab, added = _vocabulary(path, metadata)
        backend = tokenizers.Tokenizer(models.BPE(vocab, _merges(path, metadata)))
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    tokens = [tokenizers.AddedToken(text, special=special, normalized=False) for text, _, special in added]
    cast("Any", backend).add_tokens(tokens)  # its stub does not say of what the list is
    for text, token_id, _ in added:
        if backend.token_to_id(text) != token_id:
            raise CheckpointError(f"{path}: the added token {text!a:.80} cannot be number {token_id}")
    return backend


def stop_ids_of_gguf(path: Path, metadata: Metadata) -> frozenset[int]:
    """The ids that end an answer, of the keys that may name one."""
    ids: set[int] = set()
    for name in ("eos", "eot", "eom"):
        token_id = metadata.get(f"{_KEY}{name}_token_id")
        if token_id is None:
            continue
        if not isinstance(token_id, int) or token_id < 0:
            raise CheckpointError(f"{path}: {_KEY}{name}_token_id is {token_id!r:.80}, not a token id")
        ids.add(token_id)
    return frozenset(ids)


def _vocabulary(path: Path, metadata: Metadata) -> tuple[dict[str, int], list[tuple[str, int, bool]]]:
    """(the model's tokens -> ids, added tokens as (text, id, whether it is no text)). Unused ids are left out."""
    tokens = _strings(path, metadata, "tokens").decoded()
    types = metadata.get(f"{_KEY}token_type")
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or types.shape != (len(tokens),):
        raise CheckpointError(f"{path}: {_KEY}token_type is not one number for each of {len(tokens)} tokens")
    kinds: NDArray[Any] = types
    is_added = (kinds == _CONTROL) | (kinds == _USER_DEFINED)
    is_plain = ~is_added & (kinds != _UNUSED)
    added = [
        (tokens[i], i, bool(kinds[i] == _CONTROL) and tokens[i] not in TEXT_TOKENS)
        for i in np.flatnonzero(is_added).tolist()
    ]
    num_plain = int(is_plain.sum())
    follow = is_plain[:num_plain].all() and is_added[num_plain : num_plain + len(added)].all()
    if not follow:  # the library numbers added tokens on from the vocabulary, unless they are in it
        is_plain |= is_added
        num_plain = int(is_plain.sum())
    vocab = dict(compress(zip(tokens, range(len(tokens)), strict=True), is_plain.tolist()))
    if len(vocab) != num_plain:
        raise CheckpointError(f"{path}: {_KEY}tokens has {num_plain - len(vocab)} tokens twice")
    return vocab, added


def _merges(path: Path, metadata: Metadata) -> list[tuple[str, str]]:
    merges = _strings(path, metadata, "merges").pairs()
    if None in merges:
        raise CheckpointError(f"{path}: {_KEY}merges holds something other than two tokens with a space between")
    return cast("list[tuple[str, str]]", merges)


@contextmanager
def _no_collection() -> Generator[None]:
    """The collector would walk over a quarter of a million new pairs again and again: 0.1 s."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _strings(path: Path, metadata: Metadata, name: str) -> Strings:
    values = metadata.get(_KEY + name)
    if not isinstance(values, Strings):
        raise CheckpointError(f"{path}: {_KEY}{name} is missing, or no list of texts")
    return values
