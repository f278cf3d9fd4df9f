"""Weights in memory: what is written is what is kept, nothing is out of bounds, absurd sizes are our own error."""

import resource

import numpy as np
import pytest

from qwick import _kernels
from qwick.errors import CapacityError, KernelError
from qwick.formats import BF16, F32, Q8_0
from qwick.ops.contract import AttentionHeads, CacheShape, DeltaHeads
from qwick.ops.native import NativeBackend


def bf16_bits(x):
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widened(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def q8_0(x):
    """llama.cpp's quantize_row_q8_0_ref -> int8 [n, k], f16 scales [n, k / 32]."""
    blocks = x.reshape(len(x), -1, 32)
    d = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
    scaled = blocks * inverse
    quants = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)
    return quants.reshape(x.shape), d[..., 0].astype(np.float16)


ROWS = np.random.default_rng(0).standard_normal((37, 96)).astype(np.float32) * 3


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("source", ["f32", "bf16"])
@pytest.mark.parametrize("format", [F32, BF16, Q8_0])
def test_every_source_becomes_every_format(threads, source, format):
    backend = NativeBackend(threads)
    given = ROWS if source == "f32" else bf16_bits(ROWS)
    exact = ROWS if source == "f32" else widened(given)
    tensor = backend.add_matrix("w", ROWS.shape, format, [(0, given[:1]), (1, given[1:20]), (20, given[20:])])
    assert tensor.shape == ROWS.shape
    assert tensor.num_bytes == format.family.num_bytes(*ROWS.shape) == len(tensor.view())
    if format == F32:
        np.testing.assert_array_equal(tensor.view().view(np.float32), exact.ravel())
    elif format == BF16:
        np.testing.assert_array_equal(tensor.view().view(np.uint16), bf16_bits(exact).ravel())
    else:
        quants, scales = q8_0(exact)
        expected = quants * np.repeat(scales.astype(np.float32), 32, axis=1)
        np.testing.assert_array_equal(tensor.decode_rows(0, 37), expected)


def test_zeros_infinities_and_nan_do_not_become_wrong_numbers():
    rows = np.zeros((1, 128), np.float32)
    rows[0, 40], rows[0, 70], rows[0, 100] = np.inf, np.nan, 1e-42
    tensor = NativeBackend(1).add_matrix("w", rows.shape, Q8_0, [(0, rows)])
    blocks = tensor.decode_rows(0, 1).reshape(4, 32)
    assert (blocks[[0, 3]] == 0).all()
    assert np.isnan(blocks[[1, 2]]).all()


def test_tensors_are_aligned_apart_and_outlive_their_backend():
    backend = NativeBackend(1, reserve_bytes=1 << 20)
    tensors = [backend.add_vector(f"v{n}", np.full(n, n, np.float32)) for n in (1, 17, 100, 1 << 19, 3)]
    views = [t.view() for t in tensors]
    del backend, tensors
    for view, n in zip(views, (1, 17, 100, 1 << 19, 3), strict=True):
        assert view.ctypes.data % 64 == 0
        assert (view.view(np.float32) == n).all()
    views[0][:] = 0  # writable


@pytest.mark.parametrize(
    ("windows", "complaint"),
    [
        ([(0, ROWS[:10]), (11, ROWS[11:])], "expects row 10"),
        ([(1, ROWS[1:])], "expects row 0"),
        ([(0, ROWS), (37, ROWS[:1])], "expects row 37"),
        ([(0, ROWS[:36])], "not given all"),
        ([(0, ROWS[:, :64])], "rows of 64"),
        ([(0, ROWS.astype(np.float64))], "float64"),
        ([(0, np.zeros((38, 96), np.float32))], "38 rows"),
    ],
)
def test_windows_that_do_not_tile_the_tensor_are_refused(windows, complaint):
    with pytest.raises(KernelError, match=complaint):
        NativeBackend(1).add_matrix("w", ROWS.shape, F32, windows)


@pytest.mark.parametrize("shape", [(0, 32), (4, 0), (4, 33), (-1, 32), (4, 1 << 40)])
def test_shapes_that_no_kernel_reads_are_refused(shape):
    with pytest.raises(KernelError, match="multiple of 32"):
        NativeBackend(1).add_matrix("w", shape, F32, [])


def test_more_than_the_machine_has_is_a_capacity_error():
    backend = NativeBackend(1)
    with pytest.raises(CapacityError, match="memory"):
        backend.add_matrix("w", (1 << 40, 1 << 10), F32, [])
    with pytest.raises(CapacityError, match="MiB are available"):
        NativeBackend(1, reserve_bytes=_kernels.available_memory() + (64 << 30))
    heads, delta = AttentionHeads(8, 2, 256, 64), DeltaHeads(16, 16, 128, 128)
    for pages, slots in ((1 << 30, 1), (1, 1 << 30)):
        with pytest.raises(CapacityError):
            backend.open_cache(CacheShape(6, 18, heads, delta, 4, pages, slots))


@pytest.mark.parametrize("change", [{"num_pages": -1}, {"page_len": 63}, {"page_len": 0}, {"conv_kernel": 1}])
def test_cache_shapes_that_no_kernel_reads_are_refused(change):
    heads, delta = AttentionHeads(4, 2, 32, 16), DeltaHeads(2, 4, 32, 32)
    shape = {"num_pages": 1, "page_len": 64, "conv_kernel": 4} | change
    with pytest.raises(KernelError):
        NativeBackend(1).open_cache(
            CacheShape(1, 1, heads, delta, shape["conv_kernel"], shape["num_pages"], 1, shape["page_len"])
        )


def test_locking_works_or_says_which_limit_to_raise():
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        backend = NativeBackend(1, reserve_bytes=4 << 20, lock_memory=True)
    except CapacityError as error:
        assert "ulimit -l" in str(error)  # noqa: PT017
        assert 0 <= soft < 4 << 20
    else:
        assert backend.add_vector("v", np.ones(3, np.float32)).complete
