"""Prompt rows on AMX: operands are rounded to bf16 once, and a product is one chain of tile products over k."""

import numpy as np
import pytest

from qwick import _kernels
from qwick._kernels import leaves
from qwick.formats import BF16, FORMATS, Q4_K, Q8_0
from qwick.ops.native import NativeBackend, decode
from tests.kernels.conftest import runnable
from tests.kernels.random_blocks import random_blocks, rows_with_a_nan
from tests.kernels.test_panels import ROUNDED, panels_of

SIDE, DEPTH = 16, 32  # of a tile


@pytest.fixture(autouse=True)
def needs_amx():
    runnable("amx")


def rounded(x):
    """bf16 bits, nearest even; a NaN stays one."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), bits >> 16 | 0x40, nearest).astype(np.uint16)


def values(bits):
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def tiles(bits):
    """[16, k] as it lies: 32 columns after another."""
    return bits.reshape(SIDE, -1, DEPTH).swapaxes(0, 1)


@pytest.mark.parametrize("k", [32, 96, 512])
@pytest.mark.parametrize("m", [1, 15, 16])
@pytest.mark.parametrize("size", [1, 1e-30, 3e37])
def test_activations_lie_in_tiles_rounded_to_nearest_even(m, k, size):
    x = (np.random.default_rng(k).standard_normal((m, k)) * size).astype(np.float32)
    x[0, :4] = np.float32([1 + 2.0**-8, 1 + 3 * 2.0**-8, -0.0, 0]) * np.float32(size)  # ties go to even
    expected = np.zeros((SIDE, k), np.uint16)
    expected[:m] = rounded(x)
    strip, _ = leaves.round_strip("amx", x)
    np.testing.assert_array_equal(strip.view(np.uint16), tiles(expected).ravel())


def test_activations_that_are_not_finite_stay_so_and_denormals_are_zeros():
    x = np.zeros((1, 32), np.float32)
    x[0, :6] = np.nan, np.inf, -np.inf, 3.4e38, 1e-39, -1e-39  # 3.4e38 is nearer to 2^128
    strip, _ = leaves.round_strip("amx", x)
    got = values(strip[:32])
    np.testing.assert_array_equal(got[:4], np.float32([np.nan, np.inf, -np.inf, np.inf]))
    assert not got[4:].any()


@pytest.mark.parametrize("name", ROUNDED)
def test_a_panel_holds_the_values_rounded_once(weight, name):
    for n, row, k_begin, k_len in panels_of(name):
        w, exact = weight(np.random.default_rng(2), name, n, 768 if FORMATS[name].block_len == 256 else 96)
        panel, _ = leaves.decode_panel("amx", w, row, k_begin, k_len)
        here = exact[row : row + 16, k_begin : k_begin + k_len].T
        np.testing.assert_array_equal(values(panel[:, : here.shape[1]]), values(rounded(here)))
        assert not values(panel[:, here.shape[1] :]).any()


@pytest.mark.parametrize("name", [name for name in ROUNDED if FORMATS[name].is_blocks])
def test_wild_panels_too(name):
    """Scales of all sizes and signs. What is below 2^-100 may become zero."""
    format, rng = FORMATS[name], np.random.default_rng(3)
    rows = random_blocks(rng, format, 16, 512)
    tensor = NativeBackend(1).add_matrix("w", (16, 512), format, [(0, rows)], format)
    panel, _ = leaves.decode_panel("amx", tensor, 0, 0, 512)
    expected = values(rounded(decode(rows, format, 1).T))
    large = np.abs(expected) >= 2.0**-100
    np.testing.assert_array_equal(values(panel)[large], expected[large])
    assert np.all(np.abs(values(panel)[~large]) <= 2.0**-100)


def product_by_tiles(x, w, y):
    """The definition: tile after tile over k, each element by itself."""
    m, n = len(x), w.shape[1]
    out = np.zeros((-(-m // SIDE) * SIDE, n), np.float32)
    if y is not None:
        out[:m] = y
    padded = np.zeros((len(out), x.shape[1]), np.uint16)
    padded[:m] = x
    for i in range(0, len(out), SIDE):
        for j in range(0, n, SIDE):
            for k in range(0, x.shape[1], DEPTH):
                a, b, c = (
                    np.ascontiguousarray(part)
                    for part in (
                        padded[i : i + SIDE, k : k + DEPTH],
                        w[k : k + DEPTH, j : j + SIDE],
                        out[i : i + SIDE, j : j + SIDE],
                    )
                )
                out[i : i + SIDE, j : j + SIDE] = _kernels.multiply_tiles(a, b, c)
    return out[:m]


def product(x, w, y=None):
    return leaves.bf16_strip_product("amx", x.view(np.int16), w.view(np.int16), y)


def operands(rng, m, k, n):
    return (rounded(rng.standard_normal(shape)) for shape in ((m, k), (k, n)))


@pytest.mark.parametrize(("k", "n"), [(32, 16), (96, 48), (256, 32), (288, 80), (512, 128)])
@pytest.mark.parametrize("m", [1, 16, 17, 32, 33, 49, 64])
def test_products_are_one_chain_of_tiles_over_k(m, k, n):
    rng = np.random.default_rng(m * k + n)
    x, w = operands(rng, m, k, n)
    for y in (None, rng.standard_normal((m, n)).astype(np.float32)):
        got = product(x, w, y)
        np.testing.assert_array_equal(got, product_by_tiles(x, w, y))
        exact = values(x).astype(np.float64) @ values(w) + (0 if y is None else y)
        np.testing.assert_allclose(got, exact, rtol=0, atol=k * 2.0**-22)


def test_products_do_not_depend_on_other_rows_or_panels():
    x, w = operands(np.random.default_rng(7), 50, 320, 64)
    whole = product(x, w)
    for m in (1, 7, 15, 16, 17, 31, 33):
        np.testing.assert_array_equal(product(x[m:], w), whole[m:])
        np.testing.assert_array_equal(product(x[:m], w), whole[:m])
    for n in (16, 32, 48):
        np.testing.assert_array_equal(product(x, np.ascontiguousarray(w[:, n:])), whole[:, n:])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_reaches_its_row_and_its_column_only(bad):
    x, w = operands(np.random.default_rng(8), 40, 320, 48)
    clean = product(x, w)
    x[21, 300] = w[100, 37] = rounded(np.float32([bad]))[0]
    got = product(x, w)
    hit = (np.arange(40) == 21)[:, None] | (np.arange(48) == 37)
    np.testing.assert_array_equal(np.isfinite(got), ~hit)
    np.testing.assert_array_equal(got[~hit], clean[~hit])


@pytest.mark.parametrize("format", [Q8_0, Q4_K, BF16], ids=str)
def test_a_scale_that_is_not_finite_poisons_its_row(format):
    rows = rows_with_a_nan(format)
    tensor = NativeBackend(1).add_matrix("w", (16, 512), format, [(0, rows)], format)
    panel, _ = leaves.decode_panel("amx", tensor, 0, 0, 512)
    np.testing.assert_array_equal(np.isfinite(values(panel)).all(axis=0), np.arange(16) != 3)
