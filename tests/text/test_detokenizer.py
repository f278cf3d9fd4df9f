"""Pieces joined are the whole, and no piece holds half a character."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.text.detokenizer import Detokenizer
from qwick.text.tokenizer import Tokenizer
from qwick.text.vocabulary import WholeVocabulary
from tests.text.tokenizer_folder import make_backend

BYTE_IDS = st.lists(st.integers(0, 255))


def one_byte(token_id: int) -> bytes:
    return bytes([token_id])


@given(BYTE_IDS)
def test_pieces_of_any_bytes_join_to_the_decoded_whole(ids: list[int]) -> None:
    detokenizer = Detokenizer(one_byte)
    pieces = [detokenizer.push(i) for i in ids] + [detokenizer.finish()]
    assert "".join(pieces) == bytes(ids).decode("utf-8", errors="replace")


@given(st.text(), st.data())
def test_valid_text_comes_back_without_a_replacement_however_it_is_cut(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)))))
    parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    detokenizer = Detokenizer(parts.__getitem__)
    pieces = [detokenizer.push(i) for i in range(len(parts))]
    assert "".join(pieces) == text
    assert detokenizer.finish() == ""


@given(BYTE_IDS)
def test_decoding_equals_the_library_also_for_invalid_utf8(ids: list[int]) -> None:
    backend = make_backend()
    assert Tokenizer(WholeVocabulary(backend)).decode(ids) == backend.decode(ids)


def test_finish_marks_an_unfinished_character_and_starts_anew() -> None:
    detokenizer = Detokenizer(one_byte)
    assert [detokenizer.push(i) for i in "€".encode()[:2]] == ["", ""]
    assert detokenizer.finish() == "\ufffd"
    assert detokenizer.push(ord("a")) == "a"


SCRIPTS = (
    "Привет 你好，世界 مرحبا नमस्ते दुनिया สวัสดี 한국어 ሰላም გამარჯობა Γειά",
    "👩‍👩‍👧‍👦🏳️‍🌈 ＡＢ e\u0301 𐍈𒀀 \x00\x1b",
)


@pytest.mark.parametrize("text", SCRIPTS)
def test_scripts_and_emoji_survive(text: str) -> None:
    tokenizer = Tokenizer(WholeVocabulary(make_backend()))
    assert tokenizer.decode(tokenizer.encode(text, allow_special=False)) == unicodedata.normalize("NFC", text)
