"""The pocket tokenizer: the official frame, and words that fall apart into letters."""

import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from recipes.pocket import tasks
from recipes.pocket.network import VOCAB_SIZE
from recipes.pocket.tokenizer import ADDED_TOKENS, make_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


TOKENIZER = make_tokenizer()


@given(st.text())
def test_text_survives(text: str):
    ids = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


def test_english_words_fall_apart_into_letters(tokenizer: Tokenizer):
    for word in tasks.english_words():
        if "ss" not in word:
            assert tokenizer.encode(f" {word}").tokens == ["Ġ", *word]
            assert tokenizer.encode(word[::-1]).tokens == list(word[::-1])
            assert tokenizer.encode(word.upper()).tokens == list(word.upper())


@given(st.text(string.digits, min_size=1, max_size=12))
def test_digits_stand_alone(digits: str):
    assert TOKENIZER.encode(digits).tokens == list(digits)


def test_it_fits_the_embedding_and_leaves_rows_unused(tokenizer: Tokenizer):
    assert 256 + len(ADDED_TOKENS) < tokenizer.get_vocab_size() < VOCAB_SIZE
    assert VOCAB_SIZE % 256 == 0


def test_every_byte_is_a_token(tokenizer: Tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size()))
    text = "".join(chr(code) for code in (*range(0x80), 0xFF, 0x7FF, 0xFFFD, 0x10FFFF))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_official_special_tokens_come_last_in_the_official_order(tokenizer: Tokenizer):
    added = tokenizer.get_added_tokens_decoder()
    first = tokenizer.get_vocab_size() - len(ADDED_TOKENS)
    assert [(added[first + i].content, added[first + i].special) for i in range(len(added))] == list(ADDED_TOKENS)
    assert len(ADDED_TOKENS) == 33
    think = tokenizer.encode("<think>\n\n</think>")
    assert think.tokens == ["<think>", "ĊĊ", "</think>"]
    assert tokenizer.decode(think.ids) == "<think>\n\n</think>"  # text, not control


def test_making_it_twice_gives_the_same(tokenizer: Tokenizer):
    assert make_tokenizer().to_str() == tokenizer.to_str()
