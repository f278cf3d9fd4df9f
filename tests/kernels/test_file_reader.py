"""Matrices read from files by C++ are those written window by window; what cannot be read is our error."""

import os

import numpy as np
import pytest

from qwick.errors import CheckpointError, KernelError
from qwick.formats import BF16, F16, F32, Q4_K, Q6_K, Q8_0
from qwick.ops.contract import FileRows
from qwick.ops.native import NativeBackend, encode

COLS = 512


def stored(format, rows, rng):
    """Random rows as a file of `format` holds them."""
    values = rng.standard_normal((rows, COLS)).astype(np.float32)
    if format == F32:
        return values
    if format == F16:
        return values.astype(np.float16)
    if format == BF16:
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return encode(values, format, 1)


class File:
    """Matrices one after another, each at an odd offset, in one open file."""

    def __init__(self, path, matrices):
        self.path, self.offsets = path, []
        with path.open("wb") as file:
            for array in matrices:
                file.write(b"\xff" * 7)
                self.offsets.append(file.tell())
                file.write(array.tobytes())
        self.fd = os.open(path, os.O_RDONLY)

    def rows(self, i, array, format):
        return FileRows([(0, array)], self.path, self.fd, self.offsets[i], format)


@pytest.fixture
def write(tmp_path):
    opened = []

    def made(matrices):
        opened.append(File(tmp_path / "weights", matrices))
        return opened[-1]

    yield made
    for file in opened:
        os.close(file.fd)


# Rows: less than a tile, a tile, ragged, several pieces of 256 KiB.
SHAPES = [(F32, 5), (BF16, 16), (F16, 33), (Q8_0, 1), (Q4_K, 1000), (Q6_K, 47), (Q4_K, 4096)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("target", [None, Q8_0])
def test_memory_is_the_same_as_from_windows(write, threads, target):
    rng = np.random.default_rng(0)
    arrays = [stored(format, rows, rng) for format, rows in SHAPES]
    file, backend, plain = write(arrays), NativeBackend(threads), NativeBackend(1)
    read, written = [], []
    for i, ((format, rows), array) in enumerate(zip(SHAPES, arrays, strict=True)):
        place = file.rows(i, array, format)
        kept = target or format
        read.append(backend.add_matrix(str(i), (rows, COLS), kept, place, format))
        written.append(
            plain.add_matrix(str(i), (rows, COLS), kept, place.windows, format if format.is_blocks else None)
        )
    assert not any(tensor.complete for tensor in read)
    steps = []
    backend.read_files(steps.append)
    assert sum(steps) == sum(array.nbytes for array in arrays)
    for one, other in zip(read, written, strict=True):
        assert one.complete
        np.testing.assert_array_equal(one.view(), other.view())
    backend.read_files()  # nothing is left


def test_a_file_that_ends_early_is_named(write):
    array = np.ones((40, COLS), np.float32)
    file, backend = write([array]), NativeBackend(2)
    os.truncate(file.path, array.nbytes // 2)
    tensor = backend.add_matrix("layers.0.mlp.up_proj", array.shape, F32, file.rows(0, array, F32), F32)
    with pytest.raises(CheckpointError, match=r"weights: cannot read layers\.0\.mlp\.up_proj: the file became shorter"):
        backend.read_files()
    assert not tensor.complete


def test_a_descriptor_that_cannot_be_read_is_named(write, tmp_path):
    array = np.ones((4, COLS), np.float32)
    file, backend = write([array]), NativeBackend(2)
    folder = os.open(tmp_path, os.O_RDONLY)
    backend.add_matrix("w", array.shape, F32, FileRows([], tmp_path, folder, 0, F32), F32)
    with pytest.raises(CheckpointError, match="Is a directory"):
        backend.read_files()
    os.close(folder)
    assert file.fd != folder


def test_rows_that_do_not_fit_the_matrix_are_refused(write):
    file, backend = write([np.ones((4, 96), np.float32)]), NativeBackend(1)
    with pytest.raises(KernelError, match="cannot be read from GGUF type"):
        backend.add_matrix("w", (4, 96), F32, file.rows(0, np.empty(0), Q4_K), Q4_K)


def test_a_report_that_fails_ends_the_reading(write):
    """As Ctrl-C does, which arrives in the thread that reports."""
    array = np.ones((4096, COLS), np.float32)
    file, backend = write([array]), NativeBackend(1)
    backend.add_matrix("w", array.shape, F32, file.rows(0, array, F32), F32)

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.read_files(interrupt)
