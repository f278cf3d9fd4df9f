"""Prompt rows in integers: the rounding costs little, and everything has the same bits on every instruction set."""

import numpy as np
import pytest

from qwick._kernels import leaves
from qwick.formats import BF16, FORMATS, Q4_K, Q8_0
from qwick.ops.contract import Role
from qwick.ops.native import NativeBackend, decode
from qwick.ops.product import Product
from tests.kernels.conftest import runnable
from tests.kernels.random_blocks import random_blocks, rows_with_a_nan

DEPTH, TOP = 512, 2047
ROUNDED = [name for name in FORMATS if name != "f32"]
PANELS = [(16, 0, 0, 96), (21, 16, 32, 64), (1, 0, 64, 32), (40, 16, 0, 32)]
LONG_PANELS = [(16, 0, 0, 512), (21, 16, 256, 256), (1, 0, 512, 256)]


@pytest.fixture(params=["scalar", "avx2", "avx_vnni", "avx512", "avx512_vnni"])
def product_isa(request: pytest.FixtureRequest) -> str:
    """Those that multiply panels with instructions of their own."""
    return runnable(request.param)


def round_row(isa, x):
    """(integers, scale): a strip of one row."""
    q, scales = leaves.round_strip(isa, x[None])
    return q, scales[0]


def panels_of(name):
    return LONG_PANELS if FORMATS[name].block_len == 256 else PANELS


def same(a, b):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


def quantized(x):
    """The definition, in numpy's f32."""
    amax = np.abs(x).max()
    if not np.isfinite(x).all():
        return np.zeros(x.shape, np.int16), np.float32(np.nan)
    if amax < np.float32(2.0**-100):
        return np.zeros(x.shape, np.int16), np.float32(0)
    return np.rint(x * (np.float32(TOP) / amax)).astype(np.int16), amax / np.float32(TOP)


@pytest.mark.parametrize("n", [32, 96, 512])
@pytest.mark.parametrize("size", [1, 1e-20, 3e37, 1e-30, 1e-31, 1e-40, 0])
def test_activations_become_integers_by_the_definition(isa, n, size):
    x = (np.random.default_rng(n).standard_normal(n) * size).astype(np.float32)
    same(round_row(isa, x), quantized(x))


def test_rows_of_a_strip_lie_pair_by_pair(isa):
    x = np.random.default_rng(0).standard_normal((6, 96)).astype(np.float32)
    for m in range(1, 7):
        strip, scales = leaves.round_strip(isa, x[:m])
        rows = [round_row(isa, row) for row in x[:m]]
        same((strip.reshape(48, m, 2).swapaxes(0, 1).reshape(m, 96), scales), map(np.stack, zip(*rows, strict=True)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 17, 511])
def test_an_activation_that_is_not_finite_poisons_its_row(isa, bad, place):
    x = np.ones(DEPTH, np.float32)
    x[place] = bad
    q, d = round_row(isa, x)
    assert np.isnan(d)
    assert not q.any()


@pytest.mark.parametrize("name", ROUNDED)
def test_a_panel_holds_the_values(isa, weight, name):
    for n, row, k_begin, k_len in panels_of(name):
        w, exact = weight(np.random.default_rng(2), name, n, 768 if FORMATS[name].block_len == 256 else 96)
        codes, scales = panel = leaves.decode_panel(isa, w, row, k_begin, k_len)
        values = exact[row : row + 16, k_begin : k_begin + k_len].T
        rows = values.shape[1]
        assert not codes[:, rows:].any()
        assert not scales[rows:].any()
        assert np.abs(codes.astype(int)).max() <= TOP + 1  # 512 products of two stay below 2^31
        error = np.linalg.norm(codes[:, :rows] * scales[:rows].astype(np.float64) - values, axis=0)
        assert np.all(error <= 1e-3 * np.linalg.norm(values, axis=0))
        same(panel, leaves.decode_panel("scalar", w, row, k_begin, k_len))


@pytest.mark.parametrize("name", ROUNDED)
def test_wild_panels_are_the_same_everywhere(isa, name):
    """Scales of all sizes and signs, zeros among them; where bounds are loose an error counts against the largest."""
    format, rng = FORMATS[name], np.random.default_rng(3)
    if not format.is_blocks:
        pytest.skip("has no scales")
    rows = random_blocks(rng, format, 16, 512)
    rows[5] = 0
    tensor = NativeBackend(1).add_matrix("w", (16, 512), format, [(0, rows)], format)
    codes, scales = panel = leaves.decode_panel(isa, tensor, 0, 0, 512)
    same(panel, leaves.decode_panel("scalar", tensor, 0, 0, 512))
    values = decode(rows, format, 1).astype(np.float64).T
    amax = np.abs(values).max(axis=0)
    assert np.all(np.abs(codes * scales.astype(np.float64) - values) <= 8 / TOP * amax)


@pytest.mark.parametrize("format", [Q8_0, Q4_K, BF16], ids=str)
def test_a_scale_that_is_not_finite_poisons_its_row(isa, format):
    rows = rows_with_a_nan(format)
    tensor = NativeBackend(1).add_matrix("w", (16, 512), format, [(0, rows)], format)
    codes, scales = panel = leaves.decode_panel(isa, tensor, 0, 0, 512)
    np.testing.assert_array_equal(np.isnan(scales), np.arange(16) == 3)
    assert not codes[:, 3].any()
    same(panel, leaves.decode_panel("scalar", tensor, 0, 0, 512))


def test_a_panel_of_floats_is_transposed(isa, weight):
    for n, row, k_begin, k_len in PANELS:
        w, exact = weight(np.random.default_rng(2), "f32", n, 96)
        expected = np.zeros((k_len, 16), np.float32)
        rows = exact[row : row + 16, k_begin : k_begin + k_len]
        expected[:, : len(rows)] = rows.T
        np.testing.assert_array_equal(leaves.decode_panel(isa, w, row, k_begin, k_len), expected)


def random_operands(rng, m, k):
    x, codes = (rng.integers(-TOP - 1, TOP + 2, shape).astype(np.int16) for shape in ((m, k), (k, 16)))
    return x, rng.random(m).astype(np.float32), codes, rng.random(16).astype(np.float32)


@pytest.mark.parametrize("k", [32, 96, 512])
@pytest.mark.parametrize("m", [1, 2, 5, 6, 7, 11, 12, 13, 25])
def test_products_of_integers_are_exact(product_isa, m, k):
    rng = np.random.default_rng(m * k)
    x, d, codes, scales = random_operands(rng, m, k)
    start = rng.standard_normal((m, 16)).astype(np.float32)
    for y in (None, start):
        got = leaves.int_strip_product(product_isa, x, d, codes, scales, y)
        exact = (x.astype(np.int64) @ codes).astype(np.float32) * (d[:, None] * scales).astype(np.float64)
        np.testing.assert_allclose(got, exact + (0 if y is None else y), rtol=2.0**-23, atol=1e-3)
        np.testing.assert_array_equal(got, leaves.int_strip_product("scalar", x, d, codes, scales, y))


def test_the_largest_sum_does_not_overflow(product_isa):
    x, codes = np.full((13, DEPTH), TOP, np.int16), np.full((DEPTH, 16), -TOP - 1, np.int16)
    y = leaves.int_strip_product(product_isa, x, np.ones(13, np.float32), codes, np.ones(16, np.float32))
    np.testing.assert_array_equal(y, np.float32(-DEPTH * TOP * (TOP + 1)))


def test_products_do_not_depend_on_other_rows(product_isa):
    x, d, codes, scales = random_operands(np.random.default_rng(7), 26, 320)
    whole = leaves.int_strip_product(product_isa, x, d, codes, scales)
    for m in range(1, 14):
        np.testing.assert_array_equal(leaves.int_strip_product(product_isa, x[m:], d[m:], codes, scales), whole[m:])
        np.testing.assert_array_equal(leaves.int_strip_product(product_isa, x[:m], d[:m], codes, scales), whole[:m])


def one_large(rng, m, k):
    """The worst for a common scale: one of 512 carries all the rest's size, and half an integer is rounded away."""
    x = rng.standard_normal((m, k))
    x[:, 5::DEPTH] = 80
    return x.astype(np.float32)


def normal(rng, m, k):
    return rng.standard_normal((m, k)).astype(np.float32)


@pytest.mark.parametrize(
    ("isa", "inputs", "limit"),
    [("avx2", normal, 1e-3), ("avx2", one_large, 4e-3), ("amx", normal, 3e-3), ("amx", one_large, 3e-3)],
)
@pytest.mark.parametrize("name", ROUNDED)
def test_a_product_errs_by_less_than_the_contract_says(weight, name, isa, inputs, limit):
    """Relative RMS against f64 on the dequantised weights; docs/kernels.md has the figures of normal inputs."""
    rng = np.random.default_rng(8)
    _, exact = weight(rng, name, 64, 2048)
    backend = NativeBackend(1, 1, runnable(isa))
    format, rows = FORMATS[name], exact.astype(np.float32)
    w = backend.add_matrix("w", exact.shape, format, [(0, rows)]) if not format.is_blocks else None
    if w is None:
        blocks = random_blocks(rng, format, 64, 2048, tame=True)
        w = backend.add_matrix("w", exact.shape, format, [(0, blocks)], format)
        exact = decode(blocks, format, 1).astype(np.float64)
    x = inputs(rng, 70, 2048)
    want = x.astype(np.float64) @ exact.T
    error = np.linalg.norm(Product(backend, w, 70)(x, Role.PROMPT) - want) / np.linalg.norm(want)
    print(f"{name} on {isa}: {error:.2e}")
    assert error < limit
