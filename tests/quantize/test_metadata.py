"""The keys beside the tensors: what llama.cpp's converter writes for the same folder; refusal of what it cannot say."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from qwick import pocket
from qwick.errors import CheckpointError
from qwick.model.config import load_config, parse_config
from qwick.quantize.metadata import folder_metadata, size_label
from qwick.quantize.recipes import RECIPES
from qwick.quantize.vocabulary import TokenType, vocabulary_keys
from tests.checkpoints import RELEASED, small_config
from tests.text.tokenizer_folder import write_folder

VOCAB = 300


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "Qwen3.5-Tiny")
    return tmp_path / "Qwen3.5-Tiny"


def edited(folder, **changes):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def edited_model(folder, **changes):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    return edited(folder, model=model | changes)


def test_every_id_has_the_token_that_the_tokenizer_gives_it(folder):
    keys = vocabulary_keys(folder, VOCAB)
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = backend.get_vocab_size()
    assert tokens[:size] == [backend.id_to_token(i) for i in range(size)]
    assert tokens[size:] == [f"[PAD{i}]" for i in range(size, VOCAB)]
    assert len(types) == VOCAB
    kinds = dict(zip(tokens, types.tolist(), strict=True))
    assert kinds["hello"] == TokenType.NORMAL
    assert kinds["<|im_end|>"] == TokenType.CONTROL
    assert kinds["<think>"] == TokenType.USER_DEFINED
    assert kinds["[PAD299]"] == TokenType.UNUSED
    assert keys["tokenizer.ggml.merges"][:2] == ["a b", "l l"]
    assert (keys["tokenizer.ggml.model"], keys["tokenizer.ggml.pre"]) == ("gpt2", "qwen35")


def test_merges_written_as_one_text_are_the_same(folder):
    before = vocabulary_keys(folder, VOCAB)["tokenizer.ggml.merges"]
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    edited_model(folder, merges=[m if isinstance(m, str) else " ".join(m) for m in merges])
    assert vocabulary_keys(folder, VOCAB)["tokenizer.ggml.merges"] == before


def test_what_looks_like_a_control_token_is_one(folder):
    added = [{"id": 280, "content": "<|fim_pad|>", "special": False}]
    keys = vocabulary_keys(edited(folder, added_tokens=added), VOCAB)
    assert keys["tokenizer.ggml.token_type"][280] == TokenType.CONTROL


def test_end_and_padding_come_by_name_before_ids(folder):
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "<|im_end|>"}, "pad_token": "<|endoftext|>", "bos_token": None})
    )
    (folder / "config.json").write_text(json.dumps({"text_config": {"eos_token_id": 7, "bos_token_id": None}}))
    keys = vocabulary_keys(folder, VOCAB)
    tokens = keys["tokenizer.ggml.tokens"]
    assert tokens[keys["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert tokens[keys["tokenizer.ggml.padding_token_id"]] == "<|endoftext|>"
    assert "tokenizer.ggml.bos_token_id" not in keys
    assert keys["tokenizer.ggml.add_bos_token"] is False
    (folder / "tokenizer_config.json").unlink()
    assert vocabulary_keys(folder, VOCAB)["tokenizer.ggml.eos_token_id"] == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "model is missing"),
        ({"model": {"type": "Unigram"}}, "type 'Unigram'"),
        ({"model": {"type": "BPE", "vocab": {"a": 300}, "merges": []}}, "token id 300 is not below"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "token id -1"),
        ({"model": {"type": "BPE", "vocab": {"a": True}, "merges": []}}, "token id True"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}}}, "merges is missing"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}}, "no pair of tokens"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [7]}}, "no pair of tokens"),
        ({"added_tokens": {"a": 1}}, "not a list"),
        ({"added_tokens": [7]}, "an added token is missing or not"),
        ({"added_tokens": [{"id": 1}]}, "has no text"),
        ({"pre_tokenizer": None}, "its pre-tokenizer is none"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": 7}}, "its pre-tokenizer is none"),
        ({"pre_tokenizer": {"pretokenizers": [{"pattern": {"Regex": r"\w+"}}, 7]}}, "its pre-tokenizer is none"),
    ],
)
def test_tokenizers_that_gguf_cannot_hold_are_refused(folder, changes, message):
    with pytest.raises(CheckpointError, match=message):
        vocabulary_keys(edited(folder, **changes), VOCAB)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="a GGUF file holds it; copy it"):
        vocabulary_keys(tmp_path, VOCAB)


def test_the_embedded_models_keys_are_those_of_the_converter():
    """The list that llama.cpp's convert_hf_to_gguf.py wrote for the same folder, but for `general.sampling.temp`."""
    config = load_config(pocket.FOLDER).resolved(tie_word_embeddings=True, has_mtp=True)
    keys = folder_metadata(pocket.FOLDER, config, RECIPES["BF16"], 5_100_000)
    numbers = {key.removeprefix("qwen35."): v for key, v in keys.items() if isinstance(v, int | float | bool)}
    assert numbers == {
        "block_count": 5,
        "context_length": 16384,
        "embedding_length": 256,
        "feed_forward_length": 512,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "rope.freq_base": 1e7,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.key_length": 256,
        "attention.value_length": 256,
        "general.file_type": 32,
        "nextn_predict_layers": 1,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.group_count": 2,
        "ssm.time_step_rank": 4,
        "ssm.inner_size": 512,
        "full_attention_interval": 4,
        "rope.dimension_count": 64,
        "general.quantization_version": 2,
        "tokenizer.ggml.eos_token_id": 1503,
        "tokenizer.ggml.padding_token_id": 1501,
        "tokenizer.ggml.add_bos_token": False,
    }
    np.testing.assert_array_equal(keys["qwen35.rope.dimension_sections"], np.array([11, 11, 10, 0], np.int32))
    np.testing.assert_array_equal(keys["qwen35.attention.recurrent_layers"], [True, True, True, False, False])
    texts = {key for key, value in keys.items() if isinstance(value, str)}
    general = {f"general.{key}" for key in ("architecture", "type", "name", "size_label")}
    assert texts == general | {"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template"}
    assert keys["general.architecture"] == "qwen35"
    assert keys["general.sampling.temp"] == 0


def test_without_mtp_there_is_one_block_less(folder):
    config = parse_config(small_config()).resolved(tie_word_embeddings=True, has_mtp=False)
    keys = folder_metadata(folder, config, RECIPES["Q4_K_M"], 1)
    assert keys["qwen35.block_count"] == 4
    assert "qwen35.nextn_predict_layers" not in keys
    assert len(keys["qwen35.attention.recurrent_layers"]) == 4
    assert keys["general.file_type"] == 15
    assert keys["general.name"] == "Qwen3.5-Tiny"
    assert "tokenizer.chat_template" not in keys  # the folder has none; ours is not the model's


def test_sampling_defaults_are_told(folder):
    generation = {
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "repetition_penalty": 1,
        "do_sample": True,
        "min_p": "x",
    }
    (folder / "generation_config.json").write_text(json.dumps(generation))
    config = parse_config(small_config()).resolved(tie_word_embeddings=True, has_mtp=False)
    keys = folder_metadata(folder, config, RECIPES["BF16"], 1)
    told = {key.removeprefix("general.sampling."): v for key, v in keys.items() if ".sampling." in key}
    assert told == {"temp": np.float32(0.7), "top_k": 20, "top_p": np.float32(0.8), "penalty_repeat": 1}
    assert {key: value.dtype.name for key, value in told.items()} == {
        "temp": "float32",
        "top_k": "int32",
        "top_p": "float32",
        "penalty_repeat": "float32",
    }


def test_a_download_caches_folder_gives_the_repositorys_name(tmp_path):
    folder = tmp_path / "models--Qwen--Qwen3.5-0.8B" / "snapshots" / ("0a" * 20)
    config = parse_config(RELEASED["0.8b"] | {}).resolved(tie_word_embeddings=True, has_mtp=False)
    with pytest.raises(CheckpointError):
        folder_metadata(folder, config, RECIPES["BF16"], 1)  # no tokenizer there
    write_folder(folder)
    config = parse_config(small_config()).resolved(tie_word_embeddings=True, has_mtp=False)
    assert folder_metadata(folder, config, RECIPES["BF16"], 1)["general.name"] == "Qwen3.5-0.8B"


@pytest.mark.parametrize(
    ("count", "label"),
    [(4_884_000, "4.9M"), (752_393_024, "752M"), (2_274_069_824, "2.3B"), (27_000_000_000, "27B"), (900, "0.9K")],
)
def test_size_labels_are_the_converters(count, label):
    assert size_label(count) == label
