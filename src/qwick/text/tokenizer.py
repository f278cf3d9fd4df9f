"""Text to token ids, over the `tokenizers` library: byte-level BPE as all Qwen models use it."""

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qwick.errors import CheckpointError, UsageError
from qwick.text.detokenizer import Detokenizer
from qwick.text.json_file import read_object
from qwick.text.quoting import Piece
from qwick.text.tokenizer_gguf import backend_of_gguf, stop_ids_of_gguf
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

    def __init__(self, backend: "tokenizers.Tokenizer", stop_ids: Iterable[int] = ()) -> None:
        added = backend.get_added_tokens_decoder()
        self._backend = backend
        self._bytes: dict[int, bytes] = {token_id: token.content.encode() for token_id, token in added.items()}
        self.added_tokens = {token.content: token_id for token_id, token in added.items()}
        self._added_ids = frozenset(added)
        self.special_ids = frozenset(i for i, token in added.items() if token.special and token.content not in TAGS)
        named = (self.added_tokens[name] for name in END_TOKENS if name in self.added_tokens)
        self.stop_ids = frozenset((*stop_ids, *named))

    @classmethod
    def open(cls, path: Path, metadata: Metadata = NO_METADATA) -> "Tokenizer":
        """The tokenizer of a model: a folder, or a GGUF file and its metadata.

        Raises CheckpointError when a file is missing or broken. The official vocabulary takes 0.6 s, so callers run
        this in a thread beside the loading of the weights; it holds no state but the object it returns.
        """
        if metadata:
            with _errors_of_the_library(path):
                return cls(backend_of_gguf(path, metadata), stop_ids_of_gguf(path, metadata))
        backend = _open_backend(path / "tokenizer.json")
        backend.no_truncation()  # a file may ask for it, and prompts would be cut silently
        backend.no_padding()
        _check_byte_level(backend, path)
        tokenizer = cls(backend)
        tokenizer.stop_ids |= _stop_ids(path, tokenizer.added_tokens)
        return tokenizer

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary, added tokens included. The model's embedding may have more rows."""
        return self._backend.get_vocab_size()

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        """The ids of `text`.

        allow_special True: `<|im_start|>` in the text becomes the control token. For whole prompts of the caller's own.
        allow_special False: no id of an added token comes out, whatever the text says. For text of others.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the text is not Unicode: it holds a lone surrogate at position {error.start}") from None
        ids = self._backend.encode(text, add_special_tokens=False).ids
        if allow_special or self._added_ids.isdisjoint(ids):
            return ids
        return self._encode_as_text(text)

    def encode_pieces(self, pieces: Iterable[Piece]) -> list[int]:
        """The ids of a rendered chat: control tokens only where the template wrote them."""
        ids: list[int] = []
        for piece in pieces:
            if piece.is_control:
                ids.append(self.added_tokens[piece.text])
            else:
                ids += self.encode(piece.text, allow_special=False)
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
            known = self._bytes[token_id] = _bytes_of(self._backend.id_to_token(token_id) or "")
        return known

    def _encode_as_text(self, text: str) -> list[int]:
        """The library's steps one by one, without the one that looks for added tokens."""
        backend = self._backend
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words = [text]
        if backend.pre_tokenizer is not None:
            words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for word in words for token in backend.model.tokenize(word)]


def _open_backend(path: Path) -> "tokenizers.Tokenizer":
    import tokenizers

    if not path.is_file():  # nor a FIFO, which would never end
        raise CheckpointError(f"{path} is missing: copy it from the model's original repository")
    with _errors_of_the_library(path):
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB: this is no tokenizer")
        return tokenizers.Tokenizer.from_file(str(path))


@contextmanager
def _errors_of_the_library(path: Path) -> Generator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except BaseException as error:  # a panic of the library's Rust code derives from BaseException
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise CheckpointError(f"cannot read {path}: {error}; download the file again") from None
        raise


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


def _byte_alphabet() -> dict[str, int]:
    """How byte-level BPE spells bytes: printable ones as themselves, others from U+0100 on (GPT-2, `encoder.py`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def _bytes_of(token: str) -> bytes:
    try:
        return bytes([_BYTE_OF[char] for char in token])
    except KeyError:  # not spelled in the alphabet: the library takes such a token literally
        return token.encode()
