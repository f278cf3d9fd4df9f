"""The vocabulary of a GGUF file's metadata: its tokenizer is that of the tokenizer.json that the file was made of.

The library takes 0.6 s for a quarter of a million tokens and as many merges, and nothing else of Python runs meanwhile.
But merging a word only ever makes substrings of it. So for a prompt it is given those tokens and merges that are
substrings of its words: a few hundred, the same ids, 0.02 s. Nothing else is left out that could matter: which merge
comes first is their order, and that is kept.

Keys: github.com/ggml-org/ggml, docs/gguf.md. What the keys leave out (NFC, the byte-level decoder, which look-alikes of
control tokens are text) is as in the released tokenizer.json.
"""

import gc
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, compress, groupby, islice, repeat
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from qwick.errors import CapacityError, CheckpointError
from qwick.ops.native import check_vocabulary, substrings
from qwick.text.vocabulary import BYTE_OF, Added, Encoder, errors_of_the_library, words_of
from qwick.weights.checkpoint import Metadata, Strings

if TYPE_CHECKING:
    import tokenizers

_KEY = "tokenizer.ggml."
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5  # values of token_type

MAX_PART_CHARS = 1 << 16  # of texts for which a part of the vocabulary is looked up
MAX_SUBSTRINGS = 1 << 18  # of their words: 0.02 s
MAX_PARTS = 20  # after as many the time for the whole is spent

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


class GgufVocabulary:
    """A `Vocabulary`. Raises CheckpointError naming the key that makes no sense; may be used by several threads."""

    def __init__(self, path: Path, metadata: Metadata) -> None:
        self._path = path
        self._pattern = _pattern(path, metadata)
        self._tokens, self._merges = _strings(path, metadata, "tokens"), _strings(path, metadata, "merges")
        kinds = _kinds(path, metadata, len(self._tokens))
        self._is_used: NDArray[np.bool_] = kinds != _UNUSED
        is_added: NDArray[np.bool_] = (kinds == _CONTROL) | (kinds == _USER_DEFINED)
        self.num_tokens = int(self._is_used.sum())
        self.added: Sequence[Added] = [
            Added(text := self._tokens[i], i, bool(kinds[i] == _CONTROL) and text not in TEXT_TOKENS)
            for i in np.flatnonzero(is_added).tolist()
        ]
        # The library numbers added tokens on from the vocabulary; where they do not follow it they are put into it.
        plain, added = np.flatnonzero(self._is_used & ~is_added), np.flatnonzero(is_added)
        follow = (np.concatenate([plain, added]) == np.arange(self.num_tokens)).all()
        self._in_vocabulary: NDArray[np.bool_] = self._is_used & ~is_added if follow else self._is_used
        self._check()
        letters = self._backend(BYTE_OF, [])
        for token in self.added:
            if letters.token_to_id(token.text) is None:
                raise CheckpointError(f"{path}: the added token {token.text!a:.80} cannot be number {token.token_id}")
        self._letters = letters
        self._lock = Lock()
        self._words = set[str]()  # that `_part` can encode
        self._part: Encoder | None = None
        self._num_parts = 0
        self._whole: Encoder | None = None

    def token(self, token_id: int) -> str:
        known = 0 <= token_id < len(self._tokens) and bool(self._is_used[token_id])
        return self._tokens[token_id] if known else ""

    def tokens(self, count: int) -> Iterator[str]:
        known = zip(self._tokens.decoded(), self._is_used.tolist(), strict=True)
        return islice(chain((token if is_used else "" for token, is_used in known), repeat("")), count)

    def encoder(self, texts: Iterable[str]) -> Encoder:
        """Raises CheckpointError for a vocabulary that the library refuses."""
        with self._lock, errors_of_the_library(self._path):
            part = None if self._whole else self._part_for(list(texts))
            if part is None:
                self._part = None
                self._whole = self._whole or self._make_whole()
            return part or cast("Encoder", self._whole)

    def _part_for(self, texts: Sequence[str]) -> Encoder | None:
        """None where the whole vocabulary is better: a long text, or so many that making parts costs more."""
        if sum(map(len, texts)) > MAX_PART_CHARS:
            return None
        words = set[str]().union(*map(self._words_of, texts))
        if self._part and words <= self._words:
            return self._part
        if self._num_parts == MAX_PARTS:
            return None
        words |= self._words
        try:
            wanted = substrings(words, MAX_SUBSTRINGS)
        except CapacityError:
            return None
        ids = [i for i in wanted.find(*self._tokens.layout, joined=False) if self._in_vocabulary[i]]
        vocab = {self._tokens[token_id]: i for i, token_id in enumerate(ids)}
        if not vocab.keys() >= BYTE_OF.keys() & set[str]().union(*words):
            return None  # The library leaves unknown letters out before it merges: what it makes is no substring.
        backend = self._backend(vocab, _pairs(self._merges[i] for i in wanted.find(*self._merges.layout, joined=True)))
        in_model = dict(enumerate(ids))
        for text, token_id, _ in self.added:
            in_model[cast("int", backend.token_to_id(text))] = token_id
        part = Encoder(backend, in_model)
        # Only now, and the part first: Ctrl-C in between must not leave words that it cannot encode.
        self._part, self._words, self._num_parts = part, words, self._num_parts + 1
        return part

    def _words_of(self, text: str) -> set[str]:
        """What is merged by itself, whether added tokens are looked for or not."""
        found = self._letters.encode(text, add_special_tokens=False)
        words = {
            "".join(token for _, token in group)
            for _, group in groupby(zip(found.word_ids, found.tokens, strict=True), lambda pair: pair[0])
        }
        return words | set(words_of(self._letters, text))

    def _make_whole(self) -> Encoder:
        """0.6 s for the released vocabulary, most of it in the library."""
        with _no_collection():
            tokens = self._tokens.decoded()
            vocab = dict(compress(zip(tokens, range(len(tokens)), strict=True), self._in_vocabulary.tolist()))
            backend = self._backend(vocab, cast("list[tuple[str, str]]", self._merges.pairs()))
        for token in self.added:
            if backend.token_to_id(token.text) != token.token_id:
                raise CheckpointError(
                    f"{self._path}: the added token {token.text!a:.80} cannot be number {token.token_id}"
                )
        return Encoder(backend)

    def _backend(self, vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> "tokenizers.Tokenizer":
        import tokenizers
        from tokenizers import decoders, models, normalizers, pre_tokenizers

        backend = tokenizers.Tokenizer(models.BPE(dict(vocab), list(merges)))
        backend.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(tokenizers.Regex(self._pattern), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        backend.decoder = decoders.ByteLevel()
        tokens = [tokenizers.AddedToken(text, special=special, normalized=False) for text, _, special in self.added]
        cast("Any", backend).add_tokens(tokens)  # its stub does not say of what the list is
        return backend

    def _check(self) -> None:
        kinds = np.where(self._in_vocabulary, 1, np.where(self._is_used, 2, 0)).astype(np.uint8)
        fault, index = check_vocabulary(*self._tokens.layout, kinds, *self._merges.layout)
        if fault == "token twice":
            raise CheckpointError(f"{self._path}: {_KEY}tokens has {self._tokens[index]!a:.80} twice")
        if fault == "merge of not two":
            raise CheckpointError(
                f"{self._path}: {_KEY}merges holds something other than two tokens with a space between"
            )
        if fault:
            raise CheckpointError(
                f"{self._path}: {_KEY}merges has {self._merges[index]!a:.80}, but not all three of it are tokens"
            )


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


def _pattern(path: Path, metadata: Metadata) -> str:
    kind, pre = metadata.get(f"{_KEY}model"), metadata.get(f"{_KEY}pre", "default")
    if kind is None:
        raise CheckpointError(f"{path}: has no tokenizer; take a file that was converted with the model's vocabulary")
    if not isinstance(kind, str) or kind != "gpt2":
        raise CheckpointError(f"{path}: {_KEY}model is {kind!r:.80}; Qwen's tokenizers are 'gpt2', byte-level BPE")
    pattern = PATTERNS.get(pre) if isinstance(pre, str) else None
    if pattern is None:
        raise CheckpointError(f"{path}: {_KEY}pre is {pre!r:.80}; qwick knows {', '.join(map(repr, PATTERNS))}")
    return pattern


def _kinds(path: Path, metadata: Metadata, num_tokens: int) -> NDArray[Any]:
    types = metadata.get(f"{_KEY}token_type")
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or types.shape != (num_tokens,):
        raise CheckpointError(f"{path}: {_KEY}token_type is not one number for each of {num_tokens} tokens")
    return types


def _pairs(merges: Iterable[str]) -> list[tuple[str, str]]:
    return [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]


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
