"""Storage formats: what is exact is compared exactly."""

import numpy as np
import pytest

from qwick._kernels import leaves
from qwick.formats import FORMATS, Q8_0
from qwick.ops.native import NativeBackend

ALL_F16 = np.arange(65536, dtype=np.uint16)


def bf16_bits(x):
    """Nearest even, from the definition: of the two neighbours the nearer, of two equally near the even one."""
    low = x.view(np.uint32) & np.uint32(0xFFFF0000)
    high = low + np.uint32(0x10000)
    to_low = np.abs(x.astype(np.float64) - low.view(np.float32).astype(np.float64))
    to_high = np.abs(high.view(np.float32).astype(np.float64) - x.astype(np.float64))
    odd = (low >> 16) & 1 == 1
    return np.where((to_high < to_low) | ((to_high == to_low) & odd), high, low) >> 16


def test_quantize_i8_is_the_definition_to_the_bit(isa):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 32)).astype(np.float32) * np.float32(10.0) ** rng.integers(-20, 20, (40, 1))
    x = x.astype(np.float32)
    x[3] = 0
    x[4] = np.float32(1e-43) * rng.integers(-9, 10, 32)  # the scale would be subnormal
    x[5] = np.arange(-16, 16) * 0.5  # with 127 below the scale is 1: ties go to the even value
    x[5, 0] = 127
    q, d, sums = leaves.quantize_i8(isa, x.ravel())
    scale = np.abs(x).max(axis=1) / np.float32(127)
    scale[scale < np.finfo(np.float32).tiny] = 0
    expected = np.rint(np.divide(x, scale[:, None], out=np.zeros_like(x), where=scale[:, None] > 0))
    np.testing.assert_array_equal(d, scale)
    np.testing.assert_array_equal(q.reshape(40, 32), expected)
    np.testing.assert_array_equal(sums.reshape(40, 2), expected.reshape(40, 2, 16).sum(axis=2))


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_block_with_a_stray_value_has_no_number_for_its_scale(isa, bad):
    x = np.random.default_rng(0).standard_normal((34, 32)).astype(np.float32)
    clean = leaves.quantize_i8(isa, x.ravel())
    np.fill_diagonal(x, bad)  # at every lane of a block; the last two have none
    x[7, 8:] = bad
    q, d, sums = leaves.quantize_i8(isa, x.ravel())
    for mine, definition in zip((q, d, sums), leaves.quantize_i8("scalar", x.ravel()), strict=True):
        assert mine.tobytes() == definition.tobytes()
    assert np.isnan(d[:32]).all()
    assert not q[: 32 * 32].any()
    assert not sums[: 32 * 2].any()
    for mine, was in zip((q, d, sums), clean, strict=True):
        np.testing.assert_array_equal(mine.reshape(34, -1)[32:], was.reshape(34, -1)[32:])


@pytest.mark.parametrize("n", [0, 1, 7, 8, 15, 16, 17, 1000])
def test_round_bf16_is_nearest_even(isa, n):
    rng = np.random.default_rng(n)
    x = rng.integers(0, 0x7F000000, n, dtype=np.uint32).view(np.float32)
    x.view(np.uint32)[::3] &= np.uint32(0xFFFF8000)  # exact ties
    np.testing.assert_array_equal(leaves.round_bf16(isa, x).view(np.uint32) >> 16, bf16_bits(x))
    assert not np.any(leaves.round_bf16(isa, x).view(np.uint32) & 0xFFFF)


def test_round_bf16_keeps_infinities_and_nans(isa):
    bits = np.array([0x7F800000, 0xFF800000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32)
    out = leaves.round_bf16(isa, bits.view(np.float32))
    assert out[0] == np.inf
    assert out[1] == -np.inf
    assert np.isnan(out[2:]).all()


def test_every_f16_scale_decodes_exactly(isa):
    blocks = np.ones((2048, 32, 34), np.uint8)
    blocks[:, :, :2] = ALL_F16.view(np.uint8).reshape(2048, 32, 2)
    tensor = NativeBackend(1).add_matrix("w", (2048, 32 * 32), Q8_0, [(0, blocks.reshape(2048, -1))], Q8_0)
    for row in range(0, 2048, 97):
        expected = np.repeat(ALL_F16.reshape(2048, 32)[row].view(np.float16).astype(np.float32), 32)
        np.testing.assert_array_equal(leaves.decode_row(isa, tensor, row), expected)


@pytest.mark.parametrize("name", FORMATS)
def test_decode_row_is_exact(isa, weight, name):
    w, exact = weight(np.random.default_rng(1), name, 19, 512)
    for row in (0, 1, 15, 16, 18):
        np.testing.assert_array_equal(leaves.decode_row(isa, w, row), exact[row].astype(np.float32))


PANELS = [(16, 0, 0, 96), (21, 16, 32, 64), (1, 0, 64, 32), (40, 16, 0, 32)]
VALUE_PANELS = [*PANELS, (16, 0, 16, 16), (21, 16, 80, 16)]
LONG_PANELS = [(16, 0, 0, 768), (21, 16, 256, 256), (1, 0, 512, 256)]


@pytest.mark.parametrize("name", FORMATS)
def test_decode_panel_transposes_rounds_and_pads(isa, weight, name):
    block_len = FORMATS[name].block_len
    for n, row, k_begin, k_len in {1: VALUE_PANELS, 32: PANELS, 256: LONG_PANELS}[block_len]:
        w, exact = weight(np.random.default_rng(2), name, n, 768 if block_len == 256 else 96)
        values = exact.astype(np.float32)
        if name != "f32":
            values = (bf16_bits(np.abs(values)) << 16).astype(np.uint32).view(np.float32) * np.sign(values)
        expected = np.zeros((k_len, 16), np.float32)
        rows = values[row : row + 16, k_begin : k_begin + k_len]
        expected[:, : len(rows)] = rows.T
        np.testing.assert_array_equal(leaves.decode_panel(isa, w, row, k_begin, k_len), expected)
