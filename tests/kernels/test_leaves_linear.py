"""Matrix products: right within their rounding errors, and the same bits in any company."""

import itertools

import numpy as np
import pytest

from qwick._kernels import leaves
from qwick.formats import FORMATS

VALUES = ["f32", "bf16", "f16"]
UNIT = 2.0**-24  # unit roundoff of f32


def seen_by_dots(isa, name, x):
    """The activations that the decode rows of a format multiply, in f64."""
    if not FORMATS[name].is_blocks:
        return x.astype(np.float64)
    q, d, _ = leaves.quantize_i8(isa, x.ravel())
    return (q.reshape(-1, 32) * d.astype(np.float64)[:, None]).reshape(x.shape)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("k", [32, 64, 96, 256, 288, 1056])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 19), (3, 9), (8, 17)])
def test_dots_are_within_rounding(isa, weight, name, k, m, n):
    rng = np.random.default_rng(k + m)
    w, exact = weight(rng, name, n, k)
    x = rng.standard_normal((m, k)).astype(np.float32)
    y = leaves.dots(isa, x, w, 0, n)
    values = seen_by_dots(isa, name, x)
    # Every partial sum of an output is at most k / 8 terms and a few additions long.
    bound = (k / 8 + 8) * UNIT * (np.abs(values) @ np.abs(exact).T)
    assert np.all(np.abs(y - values @ exact.T) <= bound)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("k", [32, 160, 544])
def test_dots_do_not_depend_on_rows_or_pieces(isa, weight, name, k):
    rng = np.random.default_rng(k)
    w, _ = weight(rng, name, 37, k)
    x = rng.standard_normal((9, k)).astype(np.float32)
    whole = leaves.dots(isa, x, w, 0, 37)
    for m in range(1, 9):
        np.testing.assert_array_equal(leaves.dots(isa, x[:m], w, 0, 37), whole[:m])
        np.testing.assert_array_equal(leaves.dots(isa, x[m:], w, 0, 37), whole[m:])
    cuts = [0, 1, 3, 10, 11, 16, 33, 37]
    for begin, end in itertools.pairwise(cuts):
        np.testing.assert_array_equal(leaves.dots(isa, x, w, begin, end), whole[:, begin:end])


@pytest.mark.parametrize("k", [16, 48, 272])
@pytest.mark.parametrize("m", [1, 2, 5, 6, 7, 11, 12, 13, 25])
def test_panel_product_is_one_chain_of_fma_on_every_isa(isa, m, k):
    rng = np.random.default_rng(m * k)
    x = rng.standard_normal((m, k)).astype(np.float32)
    panel = rng.standard_normal((k, 16)).astype(np.float32)
    y = leaves.panel_product(isa, x, panel)
    assert np.all(
        np.abs(y - x.astype(np.float64) @ panel) <= (k + 1) * UNIT * (np.abs(x).astype(np.float64) @ np.abs(panel))
    )
    np.testing.assert_array_equal(y, leaves.panel_product("scalar", x, panel))


def test_panel_product_does_not_depend_on_k_blocks_or_rows(isa):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((26, 304)).astype(np.float32)
    panel = rng.standard_normal((304, 16)).astype(np.float32)
    whole = leaves.panel_product(isa, x, panel)
    y = None
    for begin, end in [(0, 16), (16, 272), (272, 304)]:
        y = leaves.panel_product(isa, np.ascontiguousarray(x[:, begin:end]), panel[begin:end], y)
    np.testing.assert_array_equal(y, whole)
    for m in range(1, 14):
        np.testing.assert_array_equal(leaves.panel_product(isa, x[m:], panel), whole[m:])
        np.testing.assert_array_equal(leaves.panel_product(isa, x[:m], panel), whole[:m])
