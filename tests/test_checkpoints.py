"""The hard-random recipe does what it says, measured in transformers (see tests/checkpoints.py)."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3_5ForCausalLM, Qwen3_5ForConditionalGeneration

from qwick.model.config import parse_config
from qwick.model.names import file_names, tensor_specs
from qwick.weights.checkpoint import open_checkpoint
from tests.checkpoints import (
    MAX_HALF_LIFE,
    RELEASED,
    RELEASED_PREFIX,
    Config,
    half_lives,
    planned_tensors,
    small_config,
    text_only,
    write_checkpoint,
)

NUM_TOKENS = 300
SMALL = {
    "ratio 1": small_config(linear_num_value_heads=2),
    "ratio 2": small_config(),
    "ratio 3, untied": small_config(linear_num_value_heads=6, tie_word_embeddings=False),
    "deep": small_config(num_hidden_layers=8, hidden_size=128, tie_word_embeddings=False),
}
# name: parameters of text and MTP, bytes of both in BF16 (docs of the released files; None: not published)
PUBLISHED = {
    "0.8b": (752_393_024, 20_452_864, 320, 1_746_882_752 - 2 * 100_592_896),
    "2b": (1_881_825_088, 60_828_160, 320, 4_548_144_832 - 2 * 331_416_576),
    "4b": (4_205_751_296, 120_599_552, 426, 9_319_737_856 - 2 * 333_514_240),
    "9b": (8_953_803_264, 243_290_624, 427, 19_306_216_416 - 2 * 456_010_480),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_has_exactly_the_released_parameters(size: str) -> None:
    tensors = [t.stored("BF16") for t in planned_tensors(RELEASED[size]["text_config"], 0, RELEASED_PREFIX)]
    trunk = [t for t in tensors if not t.name.startswith("mtp.")]
    counts = [sum(math.prod(t.shape) for t in part) for part in (trunk, tensors)]
    assert (counts[0], counts[1] - counts[0], len(trunk), sum(t.num_bytes for t in tensors)) == PUBLISHED[size]
    assert len(tensors) - len(trunk) == 15


@pytest.mark.parametrize("size", RELEASED)
def test_qwick_accepts_config_and_names_of_every_size(size: str) -> None:
    config = parse_config(RELEASED[size])
    planned = {t.name: t.shape for t in planned_tensors(RELEASED[size]["text_config"], 0, RELEASED_PREFIX)}
    specs = list(tensor_specs(config))
    found = file_names(specs, planned)
    assert {found[s.name]: s.shape for s in specs} == planned


def measure(folder: Path) -> dict[str, float]:
    """Statistics of one forward pass over random tokens in f32; everything in the files must be used."""
    model, info = Qwen3_5ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    rates: list[torch.Tensor] = []
    for layer in model.model.layers:
        if (delta := getattr(layer, "linear_attn", None)) is not None:
            delta.in_proj_a.register_forward_hook(
                lambda _, __, a, d=delta: rates.append(d.A_log.exp() * torch.nn.functional.softplus(a + d.dt_bias))
            )
    ids = torch.randint(0, model.config.vocab_size, (1, NUM_TOKENS), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = model(ids, output_attentions=True)
    # The last third of the rows: with few keys the entropy is small anyway.
    weights = torch.stack([a for a in out.attentions if a is not None])[..., -NUM_TOKENS // 3 :, :]
    return {
        "logit std": out.logits.std().item(),
        "smallest logit std of a row": out.logits.std(-1).min().item(),
        "median half-life": (math.log(2) / torch.stack(rates)).median().item(),
        "attention entropy": -(weights * (weights + 1e-30).log()).sum(-1).mean().item(),
        "largest attention weight": weights.amax(-1).mean().item(),
    }


def check(seen: dict[str, float]) -> None:
    print(seen)
    assert 2.5 < seen["logit std"] < 3.5
    assert seen["smallest logit std of a row"] > 2
    assert 35 < seen["median half-life"] < 140  # log-uniform over 1 .. 5000: 71
    assert 1 < seen["attention entropy"] < 3  # uniform would be 5.5: a dozen keys of 250 share the weight
    assert 0.25 < seen["largest attention weight"] < 0.6


@pytest.mark.parametrize("name", SMALL)
def test_logits_spread_attention_is_peaked_and_the_state_lasts(tmp_path: Path, name: str) -> None:
    check(measure(write_checkpoint(tmp_path, SMALL[name], seed=3)))


@pytest.mark.slow
def test_the_same_at_the_true_shape_of_the_smallest_model(tmp_path: Path) -> None:
    check(measure(write_checkpoint(tmp_path, RELEASED["0.8b"], seed=3, dtype="BF16")))


@pytest.mark.parametrize("seed", range(3))
def test_half_lives_are_log_uniform_in_every_network(seed: int) -> None:
    for config in [*SMALL.values(), RELEASED["9b"]]:
        lives = np.sort(np.log(half_lives(config["text_config"], seed)).reshape(-1)) / math.log(MAX_HALF_LIFE)
        np.testing.assert_allclose(lives, (np.arange(len(lives)) + 0.5) / len(lives))


@pytest.mark.parametrize(
    ("prefix", "config"),
    [("model.", text_only(small_config())), (RELEASED_PREFIX, text_only(small_config())), ("", small_config())],
)
def test_other_prefixes_load_the_same_network(tmp_path: Path, prefix: str, config: Config) -> None:
    reference = measure(write_checkpoint(tmp_path / "released", small_config(), seed=3))
    assert measure(write_checkpoint(tmp_path / "other", config, seed=3, prefix=prefix, shards=3)) == reference


def test_loads_as_the_multimodal_class_without_its_vision_tower(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, small_config(), seed=3)
    _, info = Qwen3_5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert all("visual" in key for key in info["missing_keys"])


def test_values_depend_on_seed_and_name_alone(tmp_path: Path) -> None:
    def read(folder: Path, name: str) -> Any:
        with open_checkpoint(folder) as checkpoint:
            return checkpoint.read(name, 0, checkpoint.tensors[name].shape[0])

    name = "layers.3.self_attn.q_proj.weight"
    config = small_config()
    first = read(write_checkpoint(tmp_path / "1", config, 1), RELEASED_PREFIX + name)
    other_files = write_checkpoint(tmp_path / "2", config, 1, prefix="model.", shards=4, mtp=False)
    np.testing.assert_array_equal(read(other_files, "model." + name), first)
    assert not np.array_equal(read(write_checkpoint(tmp_path / "3", config, 2), RELEASED_PREFIX + name), first)
    with open_checkpoint(other_files) as checkpoint:
        assert not any("mtp" in n for n in checkpoint.tensors)
