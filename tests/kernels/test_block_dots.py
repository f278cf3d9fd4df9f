"""Decode rows over blocks: exact integers, one order of f32: the same bits on every instruction set, in any company."""

from itertools import pairwise

import numpy as np
import pytest

from qwick._kernels import leaves
from qwick.errors import KernelError
from qwick.formats import Q2_K, Q3_K, Q4_0, Q8_0
from qwick.ops.native import NativeBackend, decode
from tests.kernels.conftest import runnable
from tests.kernels.random_blocks import BLOCK_FORMATS, random_blocks

UNIT = 2.0**-24  # unit roundoff of f32


@pytest.fixture(params=["scalar", "avx2", "avx_vnni", "avx512", "avx512_vnni"])
def isa(request: pytest.FixtureRequest) -> str:
    """Those that have dots of blocks of their own."""
    return runnable(request.param)


every_format = pytest.mark.parametrize("format", BLOCK_FORMATS.values(), ids=BLOCK_FORMATS)


def tensor_of(blocks, format, k):
    return NativeBackend(1).add_matrix("w", (len(blocks), k), format, [(0, blocks)], format)


def activations(rng, m, k):
    """Rows of very different sizes, with a block of zeros and one where every quant is at its limit."""
    x = (rng.standard_normal((m, k)) * 10.0 ** rng.integers(-3, 3, (m, 1))).astype(np.float32)
    x[-1, :32] = 0
    x[0, -32:] = np.where(rng.random(32) < 0.5, -1, 1)
    return x


def sizes(format):
    return [format.block_len, 2 * format.block_len, 5 * format.block_len, 1024]


@every_format
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 35), (3, 16), (6, 31)])
def test_dots_are_within_rounding(isa, format, m, n):
    for k in sizes(format):
        rng = np.random.default_rng(k + m)
        blocks = random_blocks(rng, format, n, k, tame=True)
        x = activations(rng, m, k)
        y = leaves.dots(isa, x, tensor_of(blocks, format, k), 0, n)
        q, d, _ = leaves.quantize_i8(isa, x.ravel())
        seen = (q.reshape(-1, 32) * d.astype(np.float64)[:, None]).reshape(m, k)
        weights = decode(blocks, format).astype(np.float64)
        # Per 32 columns a conversion and two products (d dx, or dx and d), of the main term and of the minima, then one
        # chain over the blocks. The minima are not in |weights|, so they are counted by the largest code they offset.
        size = np.abs(weights).reshape(n, -1, 32).max(axis=2, keepdims=True).repeat(32, axis=2).reshape(n, k)
        bound = (2 * k / 32 + 24) * UNIT * (np.abs(seen) @ (3 * size).T)
        assert np.all(np.abs(y - seen @ weights.T) <= bound)


@every_format
@pytest.mark.parametrize("tame", [True, False])
def test_every_isa_gives_the_definitions_bits(isa, format, tame):
    for k in sizes(format):
        rng = np.random.default_rng(k)
        w = tensor_of(random_blocks(rng, format, 35, k, tame=tame), format, k)
        x = activations(rng, 17, k)
        expected, actual = leaves.dots("scalar", x, w, 0, 35), leaves.dots(isa, x, w, 0, 35)
        np.testing.assert_array_equal(actual.view(np.uint32), expected.view(np.uint32))


@every_format
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_stray_activation_poisons_its_own_row_everywhere(isa, format, bad):
    rng = np.random.default_rng(0)
    w = tensor_of(random_blocks(rng, format, 35, 512, tame=True), format, 512)
    x = activations(rng, 7, 512)
    clean = leaves.dots(isa, x, w, 0, 35)
    x[2, 300], x[5, 31] = bad, bad
    dirty = leaves.dots(isa, x, w, 0, 35)
    assert np.isnan(dirty[[2, 5]]).all()
    rest = [0, 1, 3, 4, 6]
    np.testing.assert_array_equal(dirty[rest].view(np.uint32), clean[rest].view(np.uint32))


@every_format
def test_dots_do_not_depend_on_company_or_pieces(isa, format):
    k = 512 if format.block_len == 256 else 32 * 11
    rng = np.random.default_rng(k)
    w = tensor_of(random_blocks(rng, format, 53, k, tame=True), format, k)
    x = rng.standard_normal((18, k)).astype(np.float32)
    whole = leaves.dots(isa, x, w, 0, 53)
    for m in range(1, 18):  # how many share codes, and how, depends on their number
        np.testing.assert_array_equal(leaves.dots(isa, x[:m], w, 0, 53), whole[:m])
        np.testing.assert_array_equal(leaves.dots(isa, x[m:], w, 0, 53), whole[m:])
    for begin, end in [*pairwise([0, 16, 48, 53]), (0, 1), (16, 33), (32, 32)]:
        np.testing.assert_array_equal(leaves.dots(isa, x, w, begin, end), whole[:, begin:end])


@every_format
@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x80, 0x7F])
@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_codes_do_not_saturate(isa, format, byte, sign):
    """Every sum of 16 bits on the way at its largest; the scales differ in sign."""
    blocks = random_blocks(np.random.default_rng(0), format, 16, 256, tame=True).reshape(16, -1, format.block_bytes)
    scales = random_blocks(np.random.default_rng(0), format, 16, 256, tame=True).reshape(blocks.shape)
    blocks[...] = byte
    for at in {"q2_k": (80, 82), "q3_k": (108,), "q6_k": (208,), "mxfp4": ()}.get(format.name, (0,)):
        blocks[..., at : at + 2] = scales[..., at : at + 2]
    if format.name == "mxfp4":
        blocks[..., 0] = 120
    if format.name in ("q4_1", "q5_1", "q4_k", "q5_k"):
        blocks[..., 2:4] = 0
    w = tensor_of(blocks.reshape(16, -1), format, 256)
    x = np.full((6, 256), sign * 127, np.float32)
    x[3:] *= np.where(np.arange(256) % 4 < 2, 1, -1)  # the sums of either half of a lane at their limits
    np.testing.assert_array_equal(leaves.dots(isa, x, w, 0, 16), leaves.dots("scalar", x, w, 0, 16))
    weights = decode(blocks.reshape(16, -1), format).astype(np.float64)
    bound = 40 * UNIT * (np.abs(x) @ np.abs(weights).T)
    assert np.all(np.abs(leaves.dots(isa, x, w, 0, 16) - x.astype(np.float64) @ weights.T) <= bound)


def test_i8_keeps_the_lowest_code(isa):
    blocks = np.full((2, 2, 34), 0x80, np.uint8)
    blocks[1, :, 2:] = 0x7F
    blocks[..., :2] = np.float16([1]).view(np.uint8)
    x = np.full((1, 64), -127, np.float32)
    w = tensor_of(blocks.reshape(2, -1), Q8_0, 64)
    np.testing.assert_array_equal(leaves.dots(isa, x, w, 0, 2), [[64 * 128 * 127, -64 * 127 * 127]])


@pytest.mark.parametrize("format", [Q2_K, Q3_K], ids=lambda f: f.name)
def test_a_scale_of_nan_poisons_its_own_rows_only(isa, format):
    blocks = random_blocks(np.random.default_rng(1), format, 20, 512, tame=True)
    at = {"q2_k": 80, "q3_k": 108}[format.name]
    blocks[4, at : at + 2] = np.float16([np.nan]).view(np.uint8)
    y = leaves.dots(isa, np.ones((2, 512), np.float32), tensor_of(blocks, format, 512), 0, 20)
    assert np.isnan(y[:, 4]).all()
    assert np.isfinite(np.delete(y, 4, axis=1)).all()


def test_leaves_refuse_what_is_cut_across_tiles(isa):
    w = tensor_of(random_blocks(np.random.default_rng(2), Q4_0, 20, 64), Q4_0, 64)
    for begin in (1, 15, 17):
        with pytest.raises(KernelError, match="tile"):
            leaves.dots(isa, np.ones((1, 64), np.float32), w, begin, 20)
