"""The trainer's network is qwick's: its fast ops equal the plain ones, and what it saves loads back."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qwick.model.names import file_names
from qwick.model.qwen3_5 import Qwen3_5, Tensors
from qwick.model.rope import RopeTable
from qwick.ops.contract import Batch, Role, Run
from qwick.ops.torch import TorchOps, TorchStep
from recipes.pocket import network
from recipes.pocket.network import PocketModel
from recipes.pocket.optimizer import orthogonalised
from recipes.pocket.packing import Conversation, make_batch


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    rng = random.Random(0)
    lengths = (3, 40, 30, 5, 25)
    return [Conversation([rng.randrange(1000) for _ in range(n)], [i > n // 2 for i in range(n)]) for n in lengths]


def packed_losses(model: PocketModel, conversations: list[Conversation]) -> torch.Tensor:
    """Trunk and draft, summed over the learned tokens of two packed rows."""
    batch = make_batch([conversations[:3], conversations[3:]], 128, pad_id=0)
    hidden = model(batch.tokens, batch.starts)
    drafted = model.draft(batch.tokens, batch.starts, hidden)
    losses = ((hidden, batch.trunk_rows, batch.trunk_targets), (drafted, batch.draft_rows, batch.draft_targets))
    found = [F.cross_entropy(model.logits(h, rows), targets, reduction="sum") for h, rows, targets in losses]
    return torch.stack(found)


def plain_losses(model: PocketModel, conversations: list[Conversation]) -> torch.Tensor:
    """The same, every conversation a run of its own, through the token-by-token ops."""
    plain = Qwen3_5(model.config, Tensors(model._canonical()))
    total = torch.zeros(2, dtype=torch.float64)
    for c in conversations:
        ids, learned = np.array(c.ids), np.array(c.learned)
        cos, sin = RopeTable(model.config).angles(np.arange(len(ids)))
        runs = (Run(len(ids), Role.PROMPT, 0, 0, ()),)
        for ahead in (1, 2):
            rows = np.flatnonzero(learned[ahead:]).astype(np.int32)
            targets = torch.from_numpy(ids[rows + ahead].astype(np.int64))
            step = TorchStep(Batch(ids.astype(np.int32), cos, sin, runs, rows), None)
            found = plain.forward(TorchOps(), step)
            if ahead == 2:
                rolled = Batch(np.roll(ids, -1).astype(np.int32), cos, sin, runs, rows)
                found = plain.draft(TorchOps(), TorchStep(rolled, None, hidden=found.hidden))
            assert found.head is not None
            total = total + F.one_hot(torch.tensor(ahead - 1), 2) * F.cross_entropy(
                found.head, targets, reduction="sum"
            )
    return total


def test_packed_training_equals_the_token_by_token_ops_on_each_conversation(conversations: list[Conversation]):
    model = PocketModel(0).double()
    values, gradients = [], []
    for losses in (packed_losses, plain_losses):
        model.zero_grad()
        values.append(losses(model, conversations))
        values[-1].sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.weights.items() if p.grad is not None})
    # f64 weights; rope angles are f32 on both sides and count from the row here, from the conversation there
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-6)
    assert len(gradients[0]) == len(gradients[1]) == len(model.specs)
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


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
    assert 2 * sum(p.numel() for p in PocketModel(0).parameters()) < 16 << 20  # bytes in the wheel


def test_orthogonalised_brings_singular_values_near_one():
    matrix = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert 0.5 < float(values.min()) < float(values.max()) < 1.5
