"""Random weights: files that we and gguf-py read, with numbers that a network survives; made once, and whole."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from qwick.bench import random_weights
from qwick.bench.cases import Case, StepCost
from qwick.bench.random_weights import FOLDER, random_model, random_rows, write_random
from qwick.bench.sequences import Sequences
from qwick.errors import UsageError
from qwick.formats import IQ4_NL, Q8_0
from qwick.model.model import open_model
from qwick.ops.contract import Role
from qwick.quantize.recipes import recipe_named
from qwick.store import entries
from tests.bench.random_model import VOCAB_SIZE, small_shape, write_small_random

RECIPES = ("Q4_K_M", "Q5_K_M", "Q6_K", "Q4_0", "Q8_0", "BF16", "F16", "F32")


@pytest.mark.parametrize("recipe", RECIPES)
def test_weights_are_those_of_a_network_and_logits_are_finite(recipe, tmp_path):
    path = write_small_random(tmp_path / "x.gguf", recipe)
    reader = gguf.GGUFReader(path)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.isfinite(values).all(), tensor.name
        if values.ndim == 2 and values.size > 10_000 and "conv1d" not in tensor.name:
            assert 0.02 < values.std() < 0.08, tensor.name
            assert abs(values.mean()) < 0.15 * values.std(), tensor.name  # Q4_0 is off by half a step
    model = open_model(path, threads=1)
    for case in (Case(Role.PROMPT, 8), Case(Role.DECODE, 2, depth=70)):
        sequences = Sequences(model, [case])
        for batch in sequences.steps(case):
            result = model.forward(replace(batch, logsumexp=True))
            assert np.isfinite(result.logsumexp).all()
            assert np.isfinite(result.hidden).all()
            assert result.hidden.std() > 0


def test_formats_are_those_of_the_recipe_and_the_vocabulary_has_every_token(tmp_path):
    reader = gguf.GGUFReader(write_small_random(tmp_path / "x.gguf", "Q4_K_M"))
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["token_embd.weight"] == "Q6_K"
    assert types["blk.1.ffn_up.weight"] == "Q4_K"
    tokens = reader.get_field("tokenizer.ggml.tokens")
    assert len(tokens.data) == VOCAB_SIZE
    assert len({bytes(tokens.parts[i]) for i in tokens.data}) == VOCAB_SIZE
    assert len(reader.get_field("tokenizer.ggml.token_type").data) == VOCAB_SIZE


def test_a_head_of_its_own_is_there_too(tmp_path):
    config = small_shape().resolved(tie_word_embeddings=False, has_mtp=False)
    path = tmp_path / "x.gguf"
    assert write_random(path, "untied", config, recipe_named("Q4_K_M")) == path.stat().st_size
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert (types["token_embd.weight"], types["output.weight"]) == ("Q4_K", "Q6_K")
    model = open_model(path, threads=1)
    assert model.config == config
    cost = StepCost.of_model(model)
    assert cost.weight_bytes < model.backend.weight_bytes - model.weight("embed_tokens").num_bytes + 1


def test_the_same_file_each_time(tmp_path):
    first, second = (write_small_random(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    assert first.read_bytes() == second.read_bytes()


def test_quants_of_q8_0_stay_within_127():
    rows = random_rows(np.random.default_rng(0), Q8_0, 64, 256)
    quants = rows.reshape(-1, 34)[:, 2:].view(np.int8)
    assert quants.min() == -127
    assert quants.max() == 127


def test_a_format_that_is_not_drawn_is_refused():
    with pytest.raises(UsageError, match="iq4_nl"):
        random_rows(np.random.default_rng(0), IQ4_NL, 1, 32)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("QWICK_MODELS", str(tmp_path / "store"))
    monkeypatch.setattr(random_weights, "size_config", lambda _: small_shape())
    return tmp_path / "store"


def test_it_is_written_once_and_is_no_entry_of_the_store(store):
    seen = []
    path = random_model("qwen3.5:0.8b", "q8_0", lambda done, total: seen.append((done, total)))
    assert path.parent == store / FOLDER
    assert seen[-1][0] == seen[-1][1] or 0 < seen[-1][0] <= seen[-1][1]
    before = path.stat().st_mtime_ns
    assert random_model("qwen3.5:0.8b", "Q8_0", lambda *_: pytest.fail("written again")) == path
    assert path.stat().st_mtime_ns == before
    assert entries() == []
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing half-written beside it


def test_what_breaks_leaves_nothing_behind(store, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(random_weights, "random_rows", broken)
    with pytest.raises(KeyboardInterrupt):
        random_model("qwen3.5:0.8b", "Q8_0")
    assert list((store / FOLDER).iterdir()) == []


@pytest.mark.parametrize(("size", "recipe"), [("qwen3.5:3b", "Q8_0"), ("qwen3.5:2b", "Q3_K")])
def test_unknown_names_are_usage_errors(store, size, recipe):
    with pytest.raises(UsageError, match=r"qwen3.5:0.8b|Q4_K_M"):
        random_model(size, recipe)
