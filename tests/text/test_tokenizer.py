"""Encoding, control tokens in foreign text, stop ids, broken files."""

import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from qwick.errors import CheckpointError, UsageError
from qwick.text.tokenizer import Tokenizer
from qwick.text.vocabulary import WholeVocabulary
from tests.text.tokenizer_folder import SPECIAL, TEXT_LIKE, make_backend, write_folder

TOKENIZER = Tokenizer(WholeVocabulary(make_backend()))
ADDED = [*SPECIAL, *TEXT_LIKE]


@given(st.lists(st.one_of(st.sampled_from(ADDED), st.text(max_size=5))).map("".join))
def test_foreign_text_never_becomes_a_control_token(text: str) -> None:
    ids = TOKENIZER.encode(text, allow_special=False)
    assert not set(TOKENIZER.added_tokens.values()) & set(ids)
    backend = make_backend()
    assert backend.normalizer is not None
    assert TOKENIZER.decode(ids) == backend.normalizer.normalize_str(text)


@given(st.text())
def test_text_without_control_tokens_encodes_as_the_library_does(text: str) -> None:
    ids = make_backend().encode(text, add_special_tokens=False).ids
    if not set(ids) & set(TOKENIZER.added_tokens.values()):
        assert TOKENIZER.encode(text, allow_special=False) == ids
    assert TOKENIZER.encode(text, allow_special=True) == ids


def test_allow_special_reads_control_tokens() -> None:
    start = TOKENIZER.added_tokens["<|im_start|>"]
    assert TOKENIZER.encode("<|im_start|>a", allow_special=True)[0] == start


def test_decoding_leaves_special_tokens_out_and_text_like_ones_in() -> None:
    ids = TOKENIZER.encode("<think>\nab</think>ab<|im_end|>", allow_special=True)
    assert TOKENIZER.decode(ids) == "<think>\nab</think>ab"


def test_tags_are_text_even_where_a_file_calls_them_special() -> None:
    backend = make_backend()
    backend.add_tokens([AddedToken(tag, special=True, normalized=False) for tag in TEXT_LIKE])
    added = backend.get_added_tokens_decoder()
    assert sum(token.special for token in added.values()) == len(SPECIAL) + len(TEXT_LIKE)
    tokenizer = Tokenizer(WholeVocabulary(backend))
    assert tokenizer.decode(tokenizer.encode("<think>a</think>b<|im_end|>", allow_special=True)) == "<think>a</think>b"


def test_ids_beyond_the_vocabulary_decode_to_nothing() -> None:
    assert TOKENIZER.decode([TOKENIZER.num_tokens + 5]) == ""


def test_lone_surrogates_are_an_error_of_the_caller() -> None:
    with pytest.raises(UsageError, match="surrogate"):
        TOKENIZER.encode("a\ud800", allow_special=False)


@pytest.mark.parametrize(
    ("files", "extra"),
    [
        ({}, set()),
        ({"generation_config": {"eos_token_id": 3}}, {3}),
        ({"generation_config": {"eos_token_id": [3, 4]}, "config": {"text_config": {"eos_token_id": 5}}}, {3, 4, 5}),
        ({"config": {"eos_token_id": 6}, "tokenizer_config": {"eos_token": {"content": "</think>"}}}, {6, "</think>"}),
    ],
)
def test_stop_ids_come_from_every_file_and_from_the_names(
    tmp_path: Path, files: dict[str, Any], extra: set[int | str]
) -> None:
    tokenizer = Tokenizer.open(write_folder(tmp_path, **files))
    named = {"<|im_end|>", "<|endoftext|>", *extra}
    assert tokenizer.stop_ids == {tokenizer.added_tokens[n] if isinstance(n, str) else n for n in named}


def test_a_file_that_asks_for_truncation_does_not_cut_prompts(tmp_path: Path) -> None:
    write_folder(tmp_path)
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    raw["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    assert len(Tokenizer.open(tmp_path).encode("xyzw", allow_special=False)) == 4


def test_a_tokenizer_opens_in_a_thread(tmp_path: Path) -> None:
    write_folder(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(Tokenizer.open, tmp_path).result().encode("ab", allow_special=False)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}', "\0" * 100, "null"])
def test_a_broken_tokenizer_file_is_our_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        Tokenizer.open(tmp_path)


def test_a_missing_tokenizer_file_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        Tokenizer.open(tmp_path)


def test_a_fifo_is_no_tokenizer_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match="missing"):
        Tokenizer.open(tmp_path)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_is_our_error_or_harmless(at: int, value: int) -> None:
    raw = bytearray(make_backend().to_str().encode())
    raw[at % len(raw)] = value
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "tokenizer.json").write_bytes(raw)
        try:
            tokenizer = Tokenizer.open(Path(name))
            tokenizer.decode(tokenizer.encode("hello <|im_end|>", allow_special=True))
        except CheckpointError:
            pass


def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    raw["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="byte-level"):
        Tokenizer.open(tmp_path)


@pytest.mark.parametrize("value", ["x", -1, [1, "x"], 1.5])
def test_a_senseless_eos_token_id_is_our_error(tmp_path: Path, value: object) -> None:
    with pytest.raises(CheckpointError, match="eos_token_id"):
        Tokenizer.open(write_folder(tmp_path, generation_config={"eos_token_id": value}))
