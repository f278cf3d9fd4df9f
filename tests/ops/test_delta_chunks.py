"""The chunked delta rule against its definition, token by token: values, gradients, packed documents."""

import pytest
import torch
from torch import Tensor

from qwick.ops.delta_chunks import delta_chunks

RUNS, NUM_K, NUM_V, K_DIM, V_DIM = 2, 2, 4, 5, 3


def drawn(tokens: int, seed: int = 0) -> list[Tensor]:
    """q, k, v, log_g, beta, state in f64, decays from weak to strong."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k = (torch.nn.functional.normalize(normal(RUNS, tokens, NUM_K, K_DIM), dim=-1) for _ in range(2))
    v = normal(RUNS, tokens, NUM_V, V_DIM)
    log_g, beta = -normal(RUNS, tokens, NUM_V).exp(), normal(RUNS, tokens, NUM_V).sigmoid()
    return [q, k, v, log_g, beta, normal(RUNS, NUM_V, K_DIM, V_DIM)]


def recurrence(
    q: Tensor, k: Tensor, v: Tensor, log_g: Tensor, beta: Tensor, state: Tensor, starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition of `delta_chunks`."""
    tiled = torch.arange(NUM_V) % NUM_K
    outs: list[Tensor] = []
    for t in range(q.shape[1]):
        if starts is not None:
            state = state * ~starts[:, t, None, None, None]
        state = state * log_g[:, t, :, None, None].exp()
        kt, qt = k[:, t, tiled], q[:, t, tiled]
        delta = beta[:, t, :, None] * (v[:, t] - torch.einsum("rhkv,rhk->rhv", state, kt))
        state = state + kt[..., None] * delta[:, :, None]
        outs.append(torch.einsum("rhkv,rhk->rhv", state, qt))
    return torch.stack(outs, dim=1), state


def some_starts(tokens: int, seed: int = 0) -> Tensor:
    """Documents of every length from one token on; the runs differ."""
    return torch.rand(RUNS, tokens, generator=torch.Generator().manual_seed(seed)) < 0.3


@pytest.mark.parametrize("chunk_len", [1, 4, 16])
@pytest.mark.parametrize("tokens", [1, 4, 16, 37])
@pytest.mark.parametrize("packed", [False, True])
def test_chunks_are_the_recurrence(tokens, chunk_len, packed):
    *inputs, state = drawn(tokens)
    starts = some_starts(tokens) if packed else None
    out, last = delta_chunks(*inputs, starts=starts, state=state, chunk_len=chunk_len)
    expected, expected_last = recurrence(*inputs, state, starts)
    assert torch.allclose(out, expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(last, expected_last, rtol=1e-9, atol=1e-12)


def test_no_state_is_an_empty_one():
    *inputs, state = drawn(21)
    out, last = delta_chunks(*inputs, chunk_len=8)
    expected, expected_last = delta_chunks(*inputs, state=torch.zeros_like(state), chunk_len=8)
    assert torch.equal(out, expected)
    assert torch.equal(last, expected_last)


@pytest.mark.parametrize("packed", [False, True])
def test_gradients_are_the_recurrences(packed):
    starts = some_starts(23) if packed else None

    def gradients(rule) -> tuple[Tensor, ...]:
        inputs = [x.requires_grad_() for x in drawn(23)]
        out, last = rule(*inputs)
        return torch.autograd.grad((out.sin().sum() + last.cos().sum()), inputs)

    chunked = gradients(lambda *x: delta_chunks(*x[:5], starts=starts, state=x[5], chunk_len=8))
    for ours, theirs in zip(chunked, gradients(lambda *x: recurrence(*x, starts)), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-11)


def test_a_document_does_not_see_its_neighbours():
    """Whatever stands before; differences of sums of decays are all that is left of it, by rounding."""
    *inputs, _ = drawn(24)
    others = [torch.cat([x[:, :8].flip(0) * 0.5, x[:, 8:]], dim=1) for x in inputs]
    starts = torch.zeros(RUNS, 24, dtype=torch.bool)
    starts[:, 8] = True
    out, other = (delta_chunks(*x, starts=starts, chunk_len=16)[0] for x in (inputs, others))
    assert not torch.allclose(out[:, :8], other[:, :8], atol=1e-3)
    assert torch.allclose(out[:, 8:], other[:, 8:], rtol=1e-10, atol=1e-12)


def test_strong_decay_makes_neither_nan_nor_wrong_gradients():
    """A token that forgets everything: exp(-1000) is zero, and so is its gradient."""
    *inputs, state = (x.float() for x in drawn(40))
    inputs[3] = torch.full_like(inputs[3], -1000.0).requires_grad_()
    out, last = delta_chunks(*inputs, state=state, chunk_len=16)
    assert torch.isfinite(out).all()
    assert torch.isfinite(last).all()
    (gradient,) = torch.autograd.grad(out.sum() + last.sum(), inputs[3])
    assert torch.isfinite(gradient).all()


def test_padding_is_invisible():
    *inputs, state = drawn(20)
    for x in inputs[3:]:
        x[:, 12:] = 0
    _, last = delta_chunks(*inputs, state=state, chunk_len=8)
    _, expected = delta_chunks(*(x[:, :12] for x in inputs), state=state, chunk_len=8)
    assert torch.allclose(last, expected, rtol=1e-12, atol=1e-14)
