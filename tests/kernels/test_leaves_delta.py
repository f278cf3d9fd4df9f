"""The gated delta rule: right against f64, without drift, and the same bits on every ISA and for every cut."""

import numpy as np
import pytest

from qwick._kernels import leaves

UNIT = 2.0**-24  # unit roundoff of f32
TILE = 16


def tiled(state):
    """[k_dim, v_dim] in the order of kernels.h."""
    k_dim, v_dim = state.shape
    return np.ascontiguousarray(state.reshape(k_dim, v_dim // TILE, TILE).transpose(1, 0, 2)).ravel()


def untiled(state, k_dim):
    return state.reshape(-1, k_dim, TILE).transpose(1, 0, 2).reshape(k_dim, -1)


def tokens(rng, num, k_dim, v_dim):
    """q, k, v, g, beta; half-lives of 1 to 5000 tokens."""
    q, k = (rng.standard_normal((num, k_dim)) for _ in range(2))
    q /= np.linalg.norm(q, axis=1, keepdims=True) * np.sqrt(k_dim)
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    g = 0.5 ** (1 / np.exp(rng.uniform(0, np.log(5000), num)))
    made = q, k, rng.standard_normal((num, v_dim)), g, rng.random(num)
    return tuple(a.astype(np.float32) for a in made)


def exact(state, q, k, v, g, beta):
    """The definition in f64, token by token, and the largest norm a column of the state had."""
    s, out, largest = state.astype(np.float64), [], np.linalg.norm(state, axis=0).max()
    q, k, v, g, beta = (a.astype(np.float64) for a in (q, k, v, g, beta))
    for t in range(len(q)):
        s = s * g[t]
        s = s + np.outer(k[t], beta[t] * (v[t] - s.T @ k[t]))
        out.append(s.T @ q[t])
        largest = max(largest, np.linalg.norm(s, axis=0).max())
    return np.array(out).reshape(len(q), -1), s, largest


@pytest.mark.parametrize(("k_dim", "v_dim"), [(16, 16), (128, 128), (64, 48), (128, 80)])
@pytest.mark.parametrize("num", [1, 2, 23])
def test_delta_run_is_right(isa, k_dim, v_dim, num):
    rng = np.random.default_rng(num)
    inputs = tokens(rng, num, k_dim, v_dim)
    state = rng.standard_normal((k_dim, v_dim)).astype(np.float32)
    out, after = leaves.delta_run(isa, tiled(state), *inputs, 0, v_dim)
    exact_out, exact_state, largest = exact(state, *inputs)
    # A step never enlarges an older error (g <= 1, beta <= 1, |k| = 1) and adds one of a dot over k_dim.
    bound = num * (k_dim + 8) * UNIT * (largest + np.abs(inputs[2]).max())
    assert np.abs(out - exact_out).max() <= bound
    assert np.abs(untiled(after, k_dim) - exact_state).max() <= bound


def test_no_tokens_change_nothing(isa):
    state = np.random.default_rng(0).standard_normal(16 * 16).astype(np.float32)
    out, after = leaves.delta_run(isa, state, *tokens(np.random.default_rng(0), 0, 16, 16), 0, 16)
    assert out.shape == (0, 16)
    np.testing.assert_array_equal(after, state)


def test_every_isa_gives_the_same_bits(isa):
    rng = np.random.default_rng(3)
    inputs = tokens(rng, 19, 128, 112)
    state = rng.standard_normal(128 * 112).astype(np.float32)
    for mine, defined in zip(
        leaves.delta_run(isa, state, *inputs, 0, 112), leaves.delta_run("scalar", state, *inputs, 0, 112), strict=True
    ):
        np.testing.assert_array_equal(mine, defined)


@pytest.mark.parametrize("cuts", [[1, 2, 30, 37], [36], [5, 6, 7]])
def test_a_run_may_be_cut_anywhere(isa, cuts):
    rng = np.random.default_rng(4)
    inputs = tokens(rng, 37, 128, 48)
    state = rng.standard_normal(128 * 48).astype(np.float32)
    whole, after = leaves.delta_run(isa, state, *inputs, 0, 48)
    for begin, end in zip([0, *cuts], [*cuts, 37], strict=True):
        out, state = leaves.delta_run(isa, state, *(a[begin:end] for a in inputs), 0, 48)
        np.testing.assert_array_equal(out, whole[begin:end])
    np.testing.assert_array_equal(state, after)


def test_lanes_may_be_cut_into_any_tiles(isa):
    rng = np.random.default_rng(5)
    inputs = tokens(rng, 9, 64, 128)
    state = rng.standard_normal(64 * 128).astype(np.float32)
    whole, after = leaves.delta_run(isa, state, *inputs, 0, 128)
    for begin, end in [(0, 16), (16, 64), (64, 80), (80, 128)]:
        out, state = leaves.delta_run(isa, state, *inputs, begin, end)
        np.testing.assert_array_equal(out[:, begin:end], whole[:, begin:end])
    np.testing.assert_array_equal(state, after)


def test_4096_steps_do_not_drift(isa):
    if isa == "scalar":
        pytest.skip("the same bits as the others, slowly")
    num, k_dim, v_dim = 4096, 128, 16
    inputs = tokens(np.random.default_rng(6), num, k_dim, v_dim)
    state = np.zeros((k_dim, v_dim), np.float32)
    out, _ = leaves.delta_run(isa, tiled(state), *inputs, 0, v_dim)
    exact_out, _, _ = exact(state, *inputs)
    rms = np.sqrt(np.mean(exact_out**2))
    # Independent roundings of a dot over k_dim, which the decay and the corrections of the rule forget.
    error = np.sqrt(np.mean((out - exact_out)[-256:] ** 2))
    assert error <= 4 * np.sqrt(k_dim) * UNIT * rms
