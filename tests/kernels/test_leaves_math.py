"""Elementwise leaves, norms, the convolution and the reductions over logits."""

import numpy as np
import pytest

from qwick._kernels import leaves

UNIT = 2.0**-24  # unit roundoff of f32
TINY = float(np.finfo(np.float32).tiny)  # results below may be flushed to zero
SIZES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 500]


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def exp(isa, x):
    return leaves.sum_exp(isa, np.array([x], np.float32), 0.0)


def test_exp_is_within_two_ulp(isa):
    x = np.concatenate([np.linspace(-87.3, 88.7, 3001), np.linspace(-1, 1, 501)]).astype(np.float32)
    y = np.array([exp(isa, value) for value in x])
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(y - exact) / exact) <= 4 * UNIT


def test_exp_at_its_ends(isa):
    assert exp(isa, 0.0) == 1
    assert exp(isa, -np.inf) == 0
    assert exp(isa, -1e30) == 0
    assert exp(isa, -88) <= TINY
    assert exp(isa, 88.8) == np.inf
    assert exp(isa, np.inf) == np.inf
    assert np.isnan(exp(isa, np.nan))


@pytest.mark.parametrize("name", ["add", "silu_mul", "sigmoid_mul"])
@pytest.mark.parametrize("n", SIZES)
def test_elementwise_is_right_and_does_not_depend_on_place(isa, name, n):
    rng = np.random.default_rng(n)
    a, b = (rng.standard_normal(n).astype(np.float32) * 8 for _ in range(2))
    exact = {
        "add": lambda: a.astype(np.float64) + b,
        "silu_mul": lambda: a * sigmoid(a) * b,
        "sigmoid_mul": lambda: sigmoid(a) * b,
    }[name]()
    y = leaves.elementwise(isa, name, a, b)
    assert np.all(np.abs(y - exact) <= 8 * UNIT * np.abs(exact) + TINY)
    for i in range(0, n, 3):
        np.testing.assert_array_equal(leaves.elementwise(isa, name, a[i:], b[i:]), y[i:])


def test_silu_and_sigmoid_of_large_gates(isa):
    gate = np.float32([-np.inf, -200, -90, 90, 200, 1e30])
    one = np.ones(6, np.float32)
    np.testing.assert_array_equal(leaves.elementwise(isa, "sigmoid_mul", gate, one)[[0, 1, 4, 5]], [0, 0, 1, 1])
    np.testing.assert_allclose(
        leaves.elementwise(isa, "silu_mul", gate[1:], one[1:]), [0, 0, 90, 200, 1e30], atol=1e-35
    )


@pytest.mark.parametrize("n", [16, 48, 128, 1024, 2560])
def test_norms_are_within_rounding(isa, n):
    rng = np.random.default_rng(n)
    x, w, gate = (rng.standard_normal(n).astype(np.float32) for _ in range(3))
    x64 = x.astype(np.float64)
    factor = 1 / np.sqrt(np.mean(x64**2) + np.float32(1e-6))
    # A sum of n / 8 positive terms per lane, halved by the root; a few roundings after it.
    bound = (n / 16 + 12) * UNIT
    plain = x64 * factor * w
    assert np.all(np.abs(leaves.rms_norm(isa, x, w, 1e-6) - plain) <= bound * np.abs(plain))
    gated = plain * gate * sigmoid(gate)
    assert np.all(np.abs(leaves.rms_norm(isa, x, w, 1e-6, gate) - gated) <= bound * np.abs(gated))
    unit = x64 / np.sqrt(np.sum(x64**2) + 1e-6) * 0.25
    normed = leaves.l2_norm(isa, x, 0.25)
    assert np.all(np.abs(normed - unit) <= bound * np.abs(unit))
    np.testing.assert_array_equal(leaves.l2_norm(isa, x, 0.25, in_place=True), normed)


def test_norm_of_zeros_is_zero(isa):
    zeros, ones = np.zeros(32, np.float32), np.ones(32, np.float32)
    np.testing.assert_array_equal(leaves.rms_norm(isa, zeros, ones, 1e-6), zeros)
    np.testing.assert_array_equal(leaves.l2_norm(isa, zeros, 1.0), zeros)


@pytest.mark.parametrize(("head_dim", "rotary_dim"), [(16, 16), (64, 16), (128, 32), (256, 64), (64, 48), (32, 4)])
def test_norm_rope_turns_pairs(isa, head_dim, rotary_dim):
    rng = np.random.default_rng(head_dim)
    x, w = (rng.standard_normal(head_dim).astype(np.float32) for _ in range(2))
    angles = rng.uniform(-3, 3, rotary_dim // 2)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    normed = x / np.sqrt(np.mean(x.astype(np.float64) ** 2) + 1e-6) * w
    half = rotary_dim // 2
    left, right = normed[:half], normed[half:rotary_dim]
    exact, scale = normed.copy(), np.abs(normed)
    exact[:half], exact[half:rotary_dim] = left * cos - right * sin, right * cos + left * sin
    scale[:half] = scale[half:rotary_dim] = np.abs(left) + np.abs(right)
    y = leaves.norm_rope(isa, x, w, 1e-6, cos, sin)
    assert np.all(np.abs(y - exact) <= (head_dim / 16 + 12) * UNIT * scale)
    np.testing.assert_array_equal(y[rotary_dim:], leaves.rms_norm(isa, x, w, 1e-6)[rotary_dim:])


@pytest.mark.parametrize(("num_taps", "channels"), [(4, 16), (4, 208), (2, 48)])
@pytest.mark.parametrize("tokens", [1, 4, 11])
def test_conv_silu(isa, num_taps, channels, tokens):
    rng = np.random.default_rng(channels)
    rows, taps = (rng.standard_normal((n, channels)).astype(np.float32) for n in (num_taps - 1 + tokens, num_taps))
    out = leaves.conv_silu(isa, rows, taps)
    assert out.shape == (tokens, channels)
    for t in range(tokens):
        window = rows[t : t + num_taps]
        products = window.astype(np.float64) * taps
        total = products.sum(axis=0)
        bound = (num_taps + 8) * UNIT * 1.1 * np.abs(products).sum(axis=0)  # |silu'| <= 1.1
        assert np.all(np.abs(out[t] - total * sigmoid(total)) <= bound + 8 * UNIT * np.abs(total))
        np.testing.assert_array_equal(out[t : t + 1], leaves.conv_silu(isa, window, taps))  # alone: the same bits


@pytest.mark.parametrize("n", [*SIZES, 1023, 1025, 20000])
def test_max_and_sum_exp_over_logits(isa, n):
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32) * 3 - 5
    largest = float(x.max())
    assert leaves.max_value(isa, x) == largest
    exact = np.exp(x.astype(np.float64) - largest).sum()
    # exp and its argument: 4 + |x - max| / 2 roundings; the sum of a chunk of 1024.
    assert abs(leaves.sum_exp(isa, x, largest) - exact) <= (4 + np.ptp(x) + 1024 / 8 + 4) * UNIT * exact


def test_max_and_sum_exp_of_masked_logits(isa):
    x = np.full(21, -np.inf, np.float32)
    x[[3, 20]] = -1000
    assert leaves.max_value(isa, x) == -1000
    assert leaves.sum_exp(isa, x, -1000.0) == 2
