"""Text to token ids, over the `tokenizers` library: byte-level BPE as all Qwen models use it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qwick.errors import CheckpointError, UsageError
from qwick.text.detokenizer import Detokenizer
from qwick.text.json_file import read_object
from qwick.text.quoting import Piece
from qwick.text.tokenizer_gguf import GgufVocabulary, stop_ids_of_gguf
from qwick.text.vocabulary import BYTE_OF, Encoder, Vocabulary, WholeVocabulary, errors_of_the_library
from qwick.weights.checkpoint import NO_METADATA, Metadata

if TYPE_CHECKING:
    import tokenizers

MAX_FILE_BYTES = 256 << 20

# An answer ends at these whatever the configs say: the released ones name one each (facts: 248046 and 248044).
END_TOKENS = ("<|im_end|>", "<|endoftext|>")
# Text whatever the file says: some re-uploads mark these as control tokens, and an answer would lose its borders.
TAGS = frozenset({"<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"})


class Tokenizer:
    """Encodes and decodes; knows which ids end an answer.

    added_tokens  text -> id of the tokens that stand outside the vocabulary proper (`<|im_start|>`, `<think>`, …)
    special_ids   those of them that are no text (`<think>` is text, `<|im_end|>` is not)
    stop_ids      ids that end an answer
    """

    def __init__(self, vocabulary: Vocabulary, stop_ids: Iterable[int] = ()) -> None:
        added = vocabulary.added
        self._vocabulary = vocabulary
        self._bytes: dict[int, bytes] = {token.token_id: token.text.encode() for token in added}
        self.added_tokens = {token.text: token.token_id for token in added}
        self._added_ids = frozenset(self._bytes)
        self.special_ids = frozenset(token.token_id for token in added if token.is_special and token.text not in TAGS)
        named = (self.added_tokens[name] for name in END_TOKENS if name in self.added_tokens)
        self.stop_ids = frozenset((*stop_ids, *named))

    @classmethod
    def open(cls, path: Path, metadata: Metadata = NO_METADATA) -> "Tokenizer":
        """The tokenizer of a model: a folder, or a GGUF file and its metadata.

        Raises CheckpointError when a file is missing or broken. The official tokenizer.json takes 0.6 s, a GGUF file
        0.05, so callers run this in a thread beside the loading of the weights; it holds no state but the object it
        returns.
        """
        if metadata:
            with errors_of_the_library(path):
                return cls(GgufVocabulary(path, metadata), stop_ids_of_gguf(path, metadata))
        backend = _open_backend(path / "tokenizer.json")
        backend.no_truncation()  # a file may ask for it, and prompts would be cut silently
        backend.no_padding()
        _check_byte_level(backend, path)
        tokenizer = cls(WholeVocabulary(backend))
        tokenizer.stop_ids |= _stop_ids(path, tokenizer.added_tokens)
        return tokenizer

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary, added tokens included. The model's embedding may have more rows."""
        return self._vocabulary.num_tokens

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        """The ids of `text`.

        allow_special True: `<|im_start|>` in the text becomes the control token. For whole prompts of the caller's own.
        allow_special False: no id of an added token comes out, whatever the text says. For text of others.
        """
        return self._encode(self._vocabulary.encoder([_unicode(text)]), text, allow_special=allow_special)

    def encode_pieces(self, pieces: Iterable[Piece]) -> list[int]:
        """The ids of a rendered chat: control tokens only where the template wrote them."""
        pieces = list(pieces)
        encoder = self._vocabulary.encoder([_unicode(piece.text) for piece in pieces if not piece.is_control])
        ids: list[int] = []
        for piece in pieces:
            if piece.is_control:
                ids.append(self.added_tokens[piece.text])
            else:
                ids += self._encode(encoder, piece.text, allow_special=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out; the same as the pieces a Detokenizer gives, joined."""
        detokenizer = Detokenizer(self.token_bytes)
        return "".join([detokenizer.push(token_id) for token_id in ids]) + detokenizer.finish()

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes of one token, maybe not whole characters; nothing for special tokens and unused ids."""
        if token_id in self.special_ids:
            return b""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = _bytes_of(self._vocabulary.token(token_id))
        return known

    def all_bytes(self, count: int) -> list[bytes]:
        """Of the ids below `count`: the bytes of tokens, the names of special ones, nothing for ids not in use."""
        names = {token_id: text.encode() for text, token_id in self.added_tokens.items()}
        return [names.get(i) or _bytes_of(token) for i, token in enumerate(self._vocabulary.tokens(count))]

    def _encode(self, encoder: Encoder, text: str, *, allow_special: bool) -> list[int]:
        ids = encoder.encode(text)
        if allow_special or self._added_ids.isdisjoint(ids):
            return ids
        return encoder.encode_as_text(text)


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the text is not Unicode: it holds a lone surrogate at position {error.start}") from None
    return text


def _open_backend(path: Path) -> "tokenizers.Tokenizer":
    import tokenizers

    if not path.is_file():  # nor a FIFO, which would never end
        raise CheckpointError(f"{path} is missing: copy it from the model's original repository")
    with errors_of_the_library(path):
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB: this is no tokenizer")
        return tokenizers.Tokenizer.from_file(str(path))


def _check_byte_level(backend: "tokenizers.Tokenizer", folder: Path) -> None:
    """Detokenizing works on bytes, which only byte-level vocabularies spell out."""
    decoder: dict[str, Any] = {} if backend.decoder is None else json.loads(backend.decoder.__getstate__())
    parts: list[dict[str, object]] = decoder.get("decoders", [decoder])
    kinds = {part.get("type") for part in parts}
    if kinds != {"ByteLevel"}:
        raise CheckpointError(f"{folder / 'tokenizer.json'} is not byte-level BPE as Qwen's tokenizers are")


def _stop_ids(folder: Path, added_tokens: Mapping[str, int]) -> frozenset[int]:
    """The ids that end an answer, from every file that may name one."""
    config = read_object(folder / "config.json")
    text_config = config.get("text_config")
    named = [
        read_object(folder / "generation_config.json").get("eos_token_id"),
        config.get("eos_token_id"),
        cast("dict[str, Any]", text_config).get("eos_token_id") if isinstance(text_config, dict) else None,
    ]
    ids: set[int] = set()
    for value in named:
        for token_id in cast("list[object]", value if isinstance(value, list) else [value]):
            if token_id is None:
                continue
            if not isinstance(token_id, int) or token_id < 0:
                raise CheckpointError(f"{folder}: eos_token_id is {token_id!r}, not a token id; correct the config")
            ids.add(token_id)
    eos = read_object(folder / "tokenizer_config.json").get("eos_token")
    name = cast("dict[str, object]", eos).get("content") if isinstance(eos, dict) else eos
    if isinstance(name, str) and name in added_tokens:
        ids.add(added_tokens[name])
    return frozenset(ids)


_BYTES = dict.fromkeys(range(256), 0x100) | {ord(char): byte for char, byte in BYTE_OF.items()}


def _bytes_of(token: str) -> bytes:
    try:
        return token.translate(_BYTES).encode("latin-1")
    except UnicodeEncodeError:  # not spelled in the alphabet: the library takes such a token literally
        return token.encode()
