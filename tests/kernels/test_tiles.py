"""AMX's product of tiles: what the kernels count on, and that the emulation keeps to Intel's manual."""

import numpy as np
import pytest

from qwick import _kernels
from tests.kernels.conftest import runnable


@pytest.fixture(autouse=True)
def needs_amx():
    runnable("amx")


def bits(x):
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def values(x):
    return (x.astype(np.uint32) << 16).view(np.float32)


def random_tiles(rng):
    a, b = (bits(rng.standard_normal(shape)) for shape in ((16, 32), (32, 16)))
    return a, b, rng.standard_normal((16, 16)).astype(np.float32)


def test_small_integers_are_exact():
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(-128, 129, shape).astype(np.float32) for shape in ((16, 32), (32, 16), (16, 16)))
    np.testing.assert_array_equal(_kernels.multiply_tiles(bits(a), bits(b), c), c + a @ b)


def test_a_product_is_within_the_rounding_of_its_sums():
    a, b, c = random_tiles(np.random.default_rng(1))
    exact, size = (f(c) + f(values(a)) @ f(values(b)) for f in (np.float64, lambda x: np.abs(x, dtype=np.float64)))
    assert np.all(np.abs(_kernels.multiply_tiles(a, b, c) - exact) <= 18 * 2.0**-24 * size)


@pytest.mark.skipif(not _kernels.emulated, reason="of the emulation")
def test_the_emulation_adds_even_and_odd_products_apart():
    a, b, c = random_tiles(np.random.default_rng(2))
    halves = []
    for parity in (0, 1):
        x, w = values(a)[:, parity::2].astype(np.float64), values(b)[parity::2].astype(np.float64)
        total = np.zeros((16, 16), np.float32)
        for pair in range(16):  # a product has 16 bits: its sum with an f32 is exact in f64
            total = (total + x[:, pair, None] * w[pair]).astype(np.float32)
        halves.append(total)
    np.testing.assert_array_equal(_kernels.multiply_tiles(a, b, c), c + (halves[0] + halves[1]))


def test_denormals_count_as_zeros():
    tiny, one = np.float32(2.0**-130), np.float32(1)
    a, b, c = np.zeros((16, 32)), np.zeros((32, 16)), np.zeros((16, 16), np.float32)
    a[0, :], a[1, :], a[2, :] = tiny, one, 2.0**-100
    b[:, 0], b[:, 1], b[:, 2] = 2.0**100, tiny, 2.0**-40
    got = _kernels.multiply_tiles(bits(a), bits(b), c)
    assert got[0, 0] == 0  # a denormal factor
    assert got[1, 1] == 0
    assert got[2, 2] == 0  # a denormal product
    assert got[1, 0] == 32 * 2.0**100


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(5, 0), (5, 31)])
def test_what_is_not_finite_reaches_its_row_and_no_other(bad, place):
    a, b, c = random_tiles(np.random.default_rng(3))
    a[place] = bits(np.float32([bad]))[0]
    finite = np.isfinite(_kernels.multiply_tiles(a, b, c))
    np.testing.assert_array_equal(finite, np.broadcast_to(np.arange(16)[:, None] != 5, (16, 16)))
