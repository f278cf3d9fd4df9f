"""Many scripts, cut at every byte: no piece is half a character, the pieces joined are the whole."""

import unicodedata
from itertools import pairwise

import pytest

from qwick.text.answer import Answer
from qwick.text.detokenizer import Detokenizer
from qwick.text.tokenizer import Tokenizer
from qwick.text.vocabulary import WholeVocabulary
from tests.text.corpus import INVALID, SCRIPTS, TEXTS
from tests.text.tokenizer_folder import make_backend


def pieces_of(raw: bytes, cuts: list[int]) -> list[str]:
    parts = [raw[a:b] for a, b in pairwise([0, *cuts, len(raw)])]
    detokenizer = Detokenizer(parts.__getitem__)
    return [*(detokenizer.push(i) for i in range(len(parts))), detokenizer.finish()]


def two_cuts(length: int) -> list[list[int]]:
    """Every cut into two, and every middle part of one to four bytes: a token inside a character, or over its end."""
    return [[a, b] for a in range(length + 1) for b in range(a, min(a + 4, length) + 1)]


def test_the_corpus_is_what_it_says() -> None:
    letters = {name: {unicodedata.name(c).split()[0] for c in text if c.isalpha()} for name, text in SCRIPTS.items()}
    assert len(set.union(*letters.values())) >= 30
    for raw in INVALID.values():
        with pytest.raises(UnicodeDecodeError):
            raw.decode()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_cut_at_every_byte(text: str) -> None:
    raw = text.encode()
    for cuts in (*two_cuts(len(raw)), list(range(1, len(raw)))):
        pieces = pieces_of(raw, cuts)
        assert "".join(pieces) == text
        assert "\ufffd" not in text
        assert pieces[-1] == ""
        # As early as can be: after each part all characters are out whose last byte came.
        for i, end in enumerate([*cuts, len(raw)]):
            assert "".join(pieces[: i + 1]) == raw[:end].decode(errors="ignore")


@pytest.mark.parametrize("raw", INVALID.values(), ids=INVALID)
def test_bytes_that_are_no_utf8_cut_at_every_byte(raw: bytes) -> None:
    for cuts in (*two_cuts(len(raw)), list(range(1, len(raw)))):
        assert "".join(pieces_of(raw, cuts)) == raw.decode(errors="replace")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_stop_string_of_any_script_at_every_byte(text: str) -> None:
    """The stop is the text's own middle; bytes of it share tokens with what comes before and after."""
    middle = len(text) // 2
    stop = text[middle : middle + 2]
    raw = text.encode()
    for cuts in two_cuts(len(raw)):
        parts = [raw[a:b] for a, b in pairwise([0, *cuts, len(raw)])]
        answer = Answer(parts.__getitem__, [stop])
        for i in range(len(parts)):
            answer.push(i)
        answer.finish()
        assert answer.stopped
        assert answer.text == text[: text.index(stop)]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_through_a_vocabulary_of_bytes(text: str) -> None:
    """Ids of a byte-level tokenizer, with tokens that end inside characters; NFC is what it normalises to."""
    tokenizer = Tokenizer(WholeVocabulary(make_backend()))
    ids = tokenizer.encode(text, allow_special=False)
    detokenizer = Detokenizer(tokenizer.token_bytes)
    pieces = [detokenizer.push(i) for i in ids]
    assert "".join(pieces) == unicodedata.normalize("NFC", text)
    assert detokenizer.finish() == ""
