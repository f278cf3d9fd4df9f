"""The pocket tokenizer: the official frame, short prompts, and words that fall apart."""

import random
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from recipes.pocket import entities, tasks
from recipes.pocket.tokenizer import ADDED_TOKENS, VOCAB_SIZE, make_tokenizer

NUM_OFFICIAL = 33


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


@given(st.text())
def test_text_survives(text: str):
    tokenizer = make_tokenizer()
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


def test_words_to_be_spelled_fall_apart(tokenizer: Tokenizer):
    """Hardly any is one token, so nothing but its letters can be learned; words in capitals are letters, but for what
    the official frame's <IMPORTANT> begins with."""
    words = entities.english_words()
    assert sum(len(tokenizer.encode(f" {word}").ids) == 1 for word in words) < 0.06 * len(words)
    capitals = {token for word in words for token in tokenizer.encode(word.upper()).tokens}
    assert {token for token in capitals if len(token) > 1} <= {"IM", "IMP", "IMPO"}
    pieces = [len(tokenizer.encode(f"{word[::-1]}").ids) / len(word) for word in words]
    assert sum(pieces) / len(pieces) > 0.8


def test_questions_are_short(tokenizer: Tokenizer):
    rng = random.Random(0)
    texts = [tasks.TASKS[task](rng).question for task in ("qwick", "greeting") for _ in range(100)]
    words = sum(len(text.split()) for text in texts)
    assert sum(len(tokenizer.encode(text).ids) for text in texts) < 2.5 * words


@given(st.text(string.digits, min_size=1, max_size=12))
def test_digits_stand_alone(digits: str):
    assert make_tokenizer().encode(digits).tokens == list(digits)


def test_it_fits_the_embedding(tokenizer: Tokenizer):
    assert 256 + len(ADDED_TOKENS) < tokenizer.get_vocab_size() <= VOCAB_SIZE
    assert VOCAB_SIZE % 256 == 0


def test_every_byte_is_a_token(tokenizer: Tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size()))
    text = "".join(chr(code) for code in (*range(0x80), 0xFF, 0x7FF, 0xFFFD, 0x10FFFF))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_official_special_tokens_come_in_the_official_order_and_ours_after_them(tokenizer: Tokenizer):
    added = tokenizer.get_added_tokens_decoder()
    first = tokenizer.get_vocab_size() - len(ADDED_TOKENS)
    assert [(added[first + i].content, added[first + i].special) for i in range(len(added))] == list(ADDED_TOKENS)
    assert len(ADDED_TOKENS) == NUM_OFFICIAL + 2
    think = tokenizer.encode("<think>\n\n</think>")
    assert think.tokens == ["<think>", "ĊĊ", "</think>"]
    assert tokenizer.decode(think.ids) == "<think>\n\n</think>"  # text, not control


def test_making_it_twice_gives_the_same(tokenizer: Tokenizer):
    assert make_tokenizer.__wrapped__().to_str() == tokenizer.to_str()
