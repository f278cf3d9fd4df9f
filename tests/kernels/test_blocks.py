"""Blocks of files in memory: regrouped without loss, read back to the bit, refused when they do not fit."""

from itertools import pairwise

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.errors import CapacityError, KernelError
from qwick.formats import BF16, ENCODABLE, F16, F32, FORMATS, MXFP4, Q4_0, Q4_K, Q5_0, Q6_K, Q8_0
from qwick.ops.native import NativeBackend, decode, encode
from tests.kernels.random_blocks import BLOCK_FORMATS, random_blocks

every_block_format = pytest.mark.parametrize("format", BLOCK_FORMATS.values(), ids=BLOCK_FORMATS)


def reference(blocks, format):
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(format.ggml_type))


def same_bits(actual, expected):
    np.testing.assert_array_equal(actual.view(np.uint32), expected.view(np.uint32))


def in_memory(rows, format, source=None, cuts=()):
    """The values that memory holds after loading file rows in windows."""
    source = source or format
    n, k = len(rows), rows.shape[1] // source.block_bytes * source.block_len if source.is_blocks else rows.shape[1]
    ends = sorted({0, *cuts, n})
    windows = [(a, rows[a:b]) for a, b in pairwise(ends)]
    tensor = NativeBackend(2).add_matrix("w", (n, k), format, windows, source)
    assert tensor.num_bytes == format.family.num_bytes(n, k)
    return tensor.decode_rows(0, n)


@every_block_format
@pytest.mark.parametrize(("n", "blocks"), [(1, 1), (16, 2), (37, 3), (50, 1)])
def test_files_and_memory_hold_the_values_of_gguf_py(format, n, blocks):
    rows = random_blocks(np.random.default_rng(n), format, n, blocks * format.block_len)
    expected = reference(rows, format)
    same_bits(decode(rows, format), expected)
    same_bits(in_memory(rows, format), expected)


@every_block_format
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_bits_in_any_windows(format, data):
    n = data.draw(st.integers(1, 40))
    rows = random_blocks(np.random.default_rng(data.draw(st.integers(0, 2**32))), format, n, format.block_len)
    cuts = data.draw(st.lists(st.integers(0, n), max_size=4))
    same_bits(in_memory(rows, format, cuts=cuts), reference(rows, format))


@every_block_format
def test_scales_that_are_not_finite_stay_so(format):
    if format is MXFP4:
        pytest.skip("its scales are powers of two")
    rows = random_blocks(np.random.default_rng(3), format, 17, format.block_len)
    whole = rows.reshape(17, -1)
    at = {"q2_k": 80, "q3_k": 108, "q6_k": 208}.get(format.name, 0)
    whole[3, at : at + 2] = np.float16([np.inf]).view(np.uint8)
    whole[16, at : at + 2] = np.float16([np.nan]).view(np.uint8)
    with np.errstate(invalid="ignore"):
        expected = reference(rows, format)
    np.testing.assert_array_equal(in_memory(rows, format), expected)
    assert np.isnan(expected[16]).all()
    assert not np.isfinite(expected[3]).any()


def test_mxfp4_scales_below_f32_normals_are_zero():
    """2^-128 and 2^-127: subnormal in f32, and threads flush those."""
    rows = random_blocks(np.random.default_rng(0), MXFP4, 16, 64)
    rows[:, [0, 17]] = [0, 1]
    assert np.abs(reference(rows, MXFP4)).max() < 2e-37
    for values in (decode(rows, MXFP4), in_memory(rows, MXFP4)):
        assert np.abs(values - reference(rows, MXFP4)).max() < 2e-37


@pytest.mark.parametrize("format", ENCODABLE, ids=lambda f: f.name)
@pytest.mark.parametrize("source", [F32, BF16, F16, Q5_0, Q4_K], ids=lambda f: f.name)
def test_another_format_is_decoded_and_encoded_anew(format, source):
    rng = np.random.default_rng(5)
    if source.is_blocks:
        rows = random_blocks(rng, source, 21, 512, tame=True)
    else:
        rows = encode(rng.standard_normal((21, 512)).astype(np.float32), source)
        rows = rows.view({"f32": np.float32, "f16": np.float16, "bf16": np.uint16}[source.name])
    values = decode(rows, source)
    expected = values if format is source else decode(encode(values, format), format)
    same_bits(in_memory(rows, format, source, cuts=[16]), expected)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_what_is_not_encoded_takes_only_its_own_files(format):
    rows = np.ones((4, 256), np.float32)
    if format in ENCODABLE:
        assert in_memory(rows, format, F32).shape == (4, 256)
        return
    with pytest.raises(KernelError, match="only its own files"):
        in_memory(rows, format, F32)


def test_q3_k_and_q2_k_share_a_family_without_loss():
    """A row of one behind rows of the other: the family keeps both."""
    rng = np.random.default_rng(6)
    q2, q3 = (random_blocks(rng, FORMATS[name], 16, 256) for name in ("q2_k", "q3_k"))
    backend = NativeBackend(1)
    for name, rows in (("q2_k", q2), ("q3_k", q3)):
        other = FORMATS["q3_k" if name == "q2_k" else "q2_k"]
        tensor = backend.add_matrix(name, (16, 256), other, [(0, rows)], FORMATS[name])
        same_bits(tensor.decode_rows(0, 16), reference(rows, FORMATS[name]))


WRONG_ROWS = {
    "blocks of nothing": (np.zeros((16, 144), np.uint8), Q4_K, None),
    "blocks of another size": (np.zeros((16, 144), np.uint8), Q4_K, Q6_K),
    "half a block": (np.zeros((16, 72), np.uint8), Q4_K, Q4_K),
    "one block too many": (np.zeros((16, 288), np.uint8), Q4_K, Q4_K),
    "no bytes": (np.zeros((16, 0), np.uint8), Q4_K, Q4_K),
    "too few values": (np.zeros((16, 255), np.float32), Q4_K, None),
    "f64": (np.zeros((16, 256)), Q4_K, None),
    "int8": (np.zeros((16, 256), np.int8), Q8_0, Q8_0),
    "too many rows": (np.zeros((17, 144), np.uint8), Q4_K, Q4_K),
    "too few rows": (np.zeros((15, 144), np.uint8), Q4_K, Q4_K),
}


@pytest.mark.parametrize("what", WRONG_ROWS)
def test_rows_that_do_not_fit_are_refused(what):
    rows, format, source = WRONG_ROWS[what]
    with pytest.raises(KernelError, match=r"^w "):
        NativeBackend(1).add_matrix("w", (16, 256), format, [(0, rows)], source)


@pytest.mark.parametrize("shape", [(16, 128), (16, 257), (0, 256), (16, 0), (-1, 256), (1, 1 << 40), (1 << 62, 256)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises((KernelError, CapacityError)):
        NativeBackend(1).add_matrix("w", shape, Q4_K, [])


@pytest.mark.parametrize("shape", [(3, 17), (3, 143), (3, 19)])
def test_decode_refuses_parts_of_blocks(shape):
    for format in (Q4_0, Q4_K):
        with pytest.raises(KernelError, match="do not divide"):
            decode(np.zeros(shape, np.uint8), format)
    with pytest.raises(KernelError, match="matrix"):
        decode(np.zeros(18, np.uint8), Q4_0)


def test_decode_of_nothing_is_nothing():
    assert decode(np.zeros((0, 36), np.uint8), Q4_0).shape == (0, 64)
    assert decode(np.zeros((2, 0), np.uint8), Q4_0).shape == (2, 0)


@pytest.mark.parametrize("format", [F32, F16, BF16], ids=lambda f: f.name)
def test_decode_takes_values_too(format):
    values = np.random.default_rng(1).standard_normal((5, 48)).astype(np.float32)
    rows = encode(values, format)
    expected = reference(rows, format).astype(np.float32)
    same_bits(decode(rows, format), expected)
    same_bits(decode(rows.view({4: np.float32, 2: np.uint16}[format.block_bytes]), format), expected)
