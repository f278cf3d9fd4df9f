"""The torch ops one by one: against transformers' functions, against themselves in chunks, and differentiable."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.qwen3_5 import modeling_qwen3_5 as library

from qwick.errors import UsageError
from qwick.formats import BF16, F32, Q8_0, Family, Format
from qwick.model.config import parse_config
from qwick.model.rope import RopeTable
from qwick.ops import torch as ops_module
from qwick.ops.contract import Batch, DeltaHeads, Outputs, Role, Run
from qwick.ops.torch import TorchBackend, TorchOps, TorchStep
from tests.checkpoints import small_config
from tests.parity.reference import exact

torch.set_num_threads(1)
HEADS = DeltaHeads(num_k=2, num_v=6, k_dim=16, v_dim=24)
OPS = TorchOps()


def draw(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def step_of(*lengths: int) -> TorchStep:
    """Runs that start empty, no cache."""
    count = sum(lengths)
    runs = tuple(Run(n, Role.PROMPT, 0, i, []) for i, n in enumerate(lengths))
    cos, sin = RopeTable(parse_config(small_config())).angles(np.concatenate([np.arange(n) for n in lengths]))
    return TorchStep(Batch(np.zeros(count, np.int32), cos, sin, runs, np.arange(count, dtype=np.int32)), None)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5])
def test_rms_norm_is_the_librarys_at_any_size(scale):
    """At 1e-3 the eps is half of the mean: it is added there and nowhere else."""
    x, weight = draw(5, 64, scale=scale), draw(64, seed=1)
    norm = library.Qwen3_5RMSNorm(64, eps=1e-6).double()
    norm.weight.data.copy_(weight - 1)
    with exact(), torch.no_grad():
        expected = norm(x)
    assert torch.allclose(OPS.rms_norm(x, weight, 1e-6), expected, rtol=1e-12, atol=0)


def test_gated_rms_norm_is_the_librarys():
    x, gate, weight = draw(5, 3 * 16), draw(5, 3 * 16, seed=1), draw(16, seed=2)
    norm = library.Qwen3_5RMSNormGated(16, eps=1e-6).double()
    norm.weight.data.copy_(weight)
    with exact(), torch.no_grad():
        expected = norm(x.view(-1, 16), gate.view(-1, 16)).view(5, -1)
    assert torch.allclose(OPS.gated_rms_norm(x, gate, weight, 1e-6), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("taps", [1, 2, 4])
def test_causal_conv_is_the_librarys_on_each_run(taps):
    x, weight = draw(12, 10), draw(10, taps, seed=1)
    out = OPS.causal_conv(x, weight, 0, step_of(1, 7, 4))
    for begin, end in ((0, 1), (1, 8), (8, 12)):
        expected = library.causal_conv1d_fn(x[begin:end].T[None], weight, activation="silu")[0].T
        assert torch.allclose(out[begin:end], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_gated_delta_is_the_librarys_recurrence(scale):
    """At 1e-3 the 1e-6 in the norm of q and k matters. V heads are tiled here, grouped there."""
    tokens = 40
    qkv, a, b = draw(tokens, HEADS.channels, scale=scale), draw(tokens, 6, seed=1), draw(tokens, 6, seed=2)
    decay, dt_bias = -draw(6, seed=3).exp() * 0.1, draw(6, seed=4)
    out = OPS.gated_delta(qkv, a, b, decay, dt_bias, 0, HEADS, step_of(tokens)).view(tokens, 6, 24)
    q, k, v = (x[None] for x in qkv.split([32, 32, 144], dim=-1))
    grouped = torch.tensor([0, 2, 4, 1, 3, 5])  # grouped head i is tiled head grouped[i]
    with exact():
        expected, _ = library.torch_recurrent_gated_delta_rule(
            q.view(1, tokens, 2, 16),
            k.view(1, tokens, 2, 16),
            v.view(1, tokens, 6, 24)[:, :, grouped],
            g=(decay * torch.nn.functional.softplus(a + dt_bias))[None][..., grouped],
            beta=b.sigmoid()[None][..., grouped],
            use_qk_l2norm_in_kernel=True,
        )
    assert torch.allclose(out[:, grouped], expected[0], rtol=1e-9, atol=1e-13 * scale)


@pytest.mark.parametrize("chunk_len", [1, 5, 16, 64])
@pytest.mark.parametrize("tokens", [1, 16, 37])
def test_the_chunked_delta_rule_is_the_recurrence(chunk_len, tokens):
    qkv, a, b = draw(tokens + 9, HEADS.channels), draw(tokens + 9, 6, seed=1), draw(tokens + 9, 6, seed=2)
    rest = (-draw(6, seed=3).exp(), draw(6, seed=4), 0, HEADS, step_of(tokens, 9))
    chunked = TorchOps(chunk_len).gated_delta(qkv, a, b, *rest)
    assert torch.allclose(chunked, OPS.gated_delta(qkv, a, b, *rest), rtol=1e-9, atol=1e-12)


def test_the_recurrence_does_not_drift_over_4096_steps():
    """f32 against f64, half-lives up to 5,000 tokens: the error stays that of a few hundred roundings."""
    heads = DeltaHeads(1, 2, 16, 16)
    tokens = 4096
    qkv, a, b = draw(tokens, heads.channels), draw(tokens, 2, seed=1, scale=0.3), draw(tokens, 2, seed=2)
    decay = torch.tensor([-1.4e-4, -0.7], dtype=torch.float64)
    args = (qkv, a, b, decay, torch.zeros(2, dtype=torch.float64))
    wide = OPS.gated_delta(*args, 0, heads, step_of(tokens))
    narrow = OPS.gated_delta(*(x.float() for x in args), 0, heads, step_of(tokens))
    error = (narrow - wide).square().mean(-1).sqrt() / wide.square().mean().sqrt()
    assert error.max() < 1e-5
    assert error[-512:].mean() < 3 * error[512:1024].mean()


def test_gradients_flow_through_the_delta_rule_and_the_convolution():
    heads, step = DeltaHeads(1, 2, 4, 4), step_of(3, 2)
    qkv, a, b, taps = draw(5, heads.channels), draw(5, 2, seed=1), draw(5, 2, seed=2), draw(heads.channels, 3, seed=3)
    inputs = [x.requires_grad_() for x in (qkv, a, b, -draw(2, seed=4).exp(), draw(2, seed=5), taps)]

    def network(qkv, a, b, decay, dt_bias, taps):
        return TorchOps(2).gated_delta(OPS.causal_conv(qkv, taps, 0, step), a, b, decay, dt_bias, 0, heads, step)

    assert torch.autograd.gradcheck(network, inputs)


def test_top_k_takes_the_lower_id_among_equals():
    table = torch.tensor([[1.0], [2.0], [2.0], [0.0], [2.0]])
    program = TorchBackend().compile(
        lambda ops, step: Outputs(head=ops.head(torch.ones(1, 1), table, step)), max_tokens=1
    )
    batch = step_of(1).tokens
    result = program.run(replace(batch, top_k=4, logsumexp=True))
    assert result.top_ids.tolist() == [[1, 2, 4, 0]]
    assert result.top_logits.tolist() == [[2, 2, 2, 1]]
    assert result.logits is None
    assert result.logsumexp[0] == pytest.approx(np.log(3 * np.e**2 + np.e + 1))


# --- formats ---------------------------------------------------------------------------------------------------------


def stored(values, format):
    return TorchBackend(torch.float64).add_matrix("w", values.shape, format, [(0, values)]).numpy()


def test_q8_0_keeps_each_value_within_half_a_step():
    values = draw(7, 96).float().numpy() * np.logspace(-3, 3, 7, dtype=np.float32)[:, None]
    blocks = values.reshape(7, 3, 32)
    step = np.abs(blocks).max(-1, keepdims=True) / 127
    # Half a step of rounding, and the scale itself is an f16: 2^-11 of up to 127 steps.
    bound = step * (0.5 + 127 * 2.0**-11) * 1.01
    assert (np.abs(stored(values, Q8_0).reshape(blocks.shape) - blocks) <= bound).all()


def test_q8_0_of_zeros_is_zero():
    assert not stored(np.zeros((2, 32), np.float32), Q8_0).any()


def test_bf16_is_rounded_to_nearest_even():
    values = np.array([[1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, -1.0 - 2**-8]], np.float32)
    assert stored(values, BF16).tolist() == [[1.0, 1.0, 1.0 + 2**-6, -1.0]]


def test_windows_of_bf16_bits_are_widened():
    bits = np.array([[0x3F80, 0xC000]], np.uint16)
    assert stored(bits, F32).tolist() == [[1.0, -2.0]]


def test_an_unknown_format_is_refused():
    with pytest.raises(UsageError, match="q9_9"):
        stored(np.zeros((1, 32), np.float32), Format("q9_9", 99, Family.I8, 32, 40))


def test_padding_is_invisible():
    """Rows of ragged runs go to a rectangle and back."""
    step = step_of(3, 1, 5)
    x = draw(9, 4)
    padded = step.pad(x)
    assert padded.shape == (3, 5, 4)
    assert torch.equal(step.unpad(padded), x)
    assert not padded[1, 1:].any()
    assert ops_module.MAX_DRAFT_LEN == 8
