"""The trainer's network is qwick's: its fast ops equal the plain ones, and what it saves loads back."""

import random

import pytest
import torch

from qwick.model.names import file_names
from qwick.ops.torch import TorchOps
from recipes.pocket import network
from recipes.pocket.batches import TrainingBatch, training_batches
from recipes.pocket.network import PocketModel
from recipes.pocket.optimizer import orthogonalised
from recipes.pocket.tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def batch() -> TrainingBatch:
    return next(training_batches(make_tokenizer(), 3, random.Random))


def _gradients(model: PocketModel, batch: TrainingBatch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    trunk, draft = model.loss(batch)
    (trunk + draft).backward()
    return {name: p.grad.clone() for name, p in model.weights.items() if p.grad is not None}


def test_training_ops_equal_the_token_by_token_ops(batch: TrainingBatch, monkeypatch: pytest.MonkeyPatch):
    model = PocketModel(0).double()
    fast, fast_loss = _gradients(model, batch), model.loss(batch)
    monkeypatch.setattr(model, "_ops", TorchOps())
    plain, plain_loss = _gradients(model, batch), model.loss(batch)
    # f64 weights; the rope angles are f32 on both sides, so the sides differ by f64 rounding alone
    torch.testing.assert_close(fast_loss, plain_loss, rtol=1e-10, atol=1e-12)
    assert len(fast) == len(plain) == len(model.specs)
    for name, gradient in plain.items():
        torch.testing.assert_close(fast[name], gradient, rtol=1e-7, atol=1e-9 * float(gradient.abs().max()))


def test_what_is_saved_loads_as_it_was():
    model = PocketModel(1)
    saved = model.file_tensors(dict(model.weights.items()))
    names = file_names(model.specs, saved.keys())
    for spec in model.specs:
        tensor = saved[names[spec.name]]
        assert tuple(tensor.shape) == spec.shape
        assert (tensor.dtype == torch.float32) == spec.name.endswith(("A_log", "linear_attn.norm"))
        loaded = torch.from_numpy(spec.to_canonical(tensor.float().numpy()))
        parameter = model.weights[spec.name.replace(".", "/")].detach()
        held = -parameter.exp() if spec.name.endswith("A_log") else parameter
        torch.testing.assert_close(loaded.reshape(held.shape), held, rtol=2**-8, atol=2**-8)


def test_geometry_rules():
    config = network.model_config()
    heads, delta = config.attention, config.delta
    sizes = (
        config.vocab_size, config.hidden_size, config.intermediate_size, heads.num_q * heads.head_dim,
        heads.num_kv * heads.head_dim, delta.num_k * delta.k_dim, delta.num_v * delta.v_dim,
    )  # fmt: skip
    assert all(size % 256 == 0 for size in sizes)
    assert (heads.head_dim, heads.rotary_dim, delta.k_dim, delta.v_dim) == (256, 64, 128, 128)
    assert delta.num_v == 2 * delta.num_k
    assert config.has_mtp
    assert config.tie_word_embeddings


def test_orthogonalised_brings_singular_values_near_one():
    matrix = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert 0.5 < float(values.min()) < float(values.max()) < 1.5
