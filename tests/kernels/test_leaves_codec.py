"""Storage formats: what is exact is compared exactly."""

import numpy as np
import pytest

from qwick._kernels import leaves
from qwick.formats import FORMATS, Q8_0
from qwick.ops.native import NativeBackend

ALL_F16 = np.arange(65536, dtype=np.uint16)


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
