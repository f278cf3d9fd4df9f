"""Checks of text pass on a byte-level tokenizer and find one that loses, invents or lets users write control tokens."""

import pytest

from qwick.text.chat_template import ChatTemplate
from qwick.text.tokenizer import Tokenizer
from qwick.verify.text import text_checks
from tests.verify.conftest import failures


@pytest.fixture
def tokenizer(folder):
    return Tokenizer.open(folder)


@pytest.fixture
def template(folder):
    return ChatTemplate.open(folder)


def test_a_good_one_passes(tokenizer, template):
    assert failures(text_checks(tokenizer, template, 512)) == []


def test_ids_beyond_the_embedding_are_found(tokenizer, template):
    assert failures(text_checks(tokenizer, template, 200)) == ["round trip", "end of answer"]


def test_lost_text_is_found(tokenizer, template, monkeypatch):
    good = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids: good(ids).rstrip("”…"))
    assert failures(text_checks(tokenizer, template, 512)) == ["round trip"]


def test_a_model_without_an_end_is_found(tokenizer, template):
    tokenizer.stop_ids = frozenset()
    assert failures(text_checks(tokenizer, template, 512)) == ["end of answer"]


def test_control_tokens_of_users_are_found(tokenizer, template, monkeypatch):
    def as_one_text(pieces):
        return tokenizer.encode("".join(piece.text for piece in pieces), allow_special=True)

    monkeypatch.setattr(tokenizer, "encode_pieces", as_one_text)
    assert failures(text_checks(tokenizer, template, 512)) == ["chat template"]


def test_a_template_that_fails_or_loses_the_question_is_found(tokenizer):
    for source in ("{{ raise_exception('no') }}", "<|im_start|>user<|im_end|>"):
        template = ChatTemplate(source, is_own=True)
        assert failures(text_checks(tokenizer, template, 512)) == ["chat template"]
