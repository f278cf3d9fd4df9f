"""The tokens of a model, and the `tokenizers` library over all of them or over those that a text can use."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from qwick.errors import CheckpointError

if TYPE_CHECKING:
    import tokenizers


class Added(NamedTuple):
    """A token that stands outside the vocabulary proper; `is_special`: it is no text."""

    text: str
    token_id: int
    is_special: bool


class Encoder:
    """A tokenizer of the library. `ids`: what its ids are in the model; None: the same."""

    def __init__(self, backend: "tokenizers.Tokenizer", ids: Mapping[int, int] | None = None) -> None:
        self._backend = backend
        self._ids = ids

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, added tokens looked for."""
        return self._in_model(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_as_text(self, text: str) -> list[int]:
        """The library's steps one by one, without the one that looks for added tokens."""
        model = self._backend.model
        return self._in_model([token.id for word in words_of(self._backend, text) for token in model.tokenize(word)])

    def _in_model(self, ids: list[int]) -> list[int]:
        return ids if self._ids is None else [self._ids[token_id] for token_id in ids]


class Vocabulary(Protocol):
    """What a Tokenizer needs to know."""

    @property
    def num_tokens(self) -> int:
        """Added tokens included; ids beyond may be in use, ids below may not."""
        ...

    @property
    def added(self) -> Sequence[Added]: ...

    def token(self, token_id: int) -> str:
        """As the vocabulary spells it; "" for ids that are not in use. Raises CheckpointError when it is no text."""
        ...

    def tokens(self, count: int) -> Iterator[str]:
        """Those of the ids below `count`, as `token` gives them."""
        ...

    def encoder(self, texts: Iterable[str]) -> Encoder:
        """What encodes these texts as the whole vocabulary does."""
        ...


class WholeVocabulary:
    """A tokenizer of the library, as it is."""

    def __init__(self, backend: "tokenizers.Tokenizer") -> None:
        self._backend = backend
        self._encoder = Encoder(backend)
        tokens = backend.get_added_tokens_decoder()
        self.added: Sequence[Added] = [Added(token.content, i, token.special) for i, token in tokens.items()]

    @property
    def num_tokens(self) -> int:
        return self._backend.get_vocab_size()

    def token(self, token_id: int) -> str:
        return self._backend.id_to_token(token_id) or ""

    def tokens(self, count: int) -> Iterator[str]:
        return map(self.token, range(count))

    def encoder(self, texts: Iterable[str]) -> Encoder:
        return self._encoder


def words_of(backend: "tokenizers.Tokenizer", text: str) -> list[str]:
    """What is merged by itself, spelled as the vocabulary is; no added token is looked for."""
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return [text]
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


@contextmanager
def errors_of_the_library(path: Path) -> Generator[None]:
    """Whatever the library finds wrong as a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except BaseException as error:  # a panic of the library's Rust code derives from BaseException
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise CheckpointError(f"cannot read {path}: {error}; download the file again") from None
        raise


def _byte_alphabet() -> dict[str, int]:
    """How byte-level BPE spells bytes: printable ones as themselves, others from U+0100 on (GPT-2, `encoder.py`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_alphabet()
