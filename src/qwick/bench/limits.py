"""The limits of this machine, measured in a few seconds: memory, matrix products, loading."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwick.formats import Family, Format
from qwick.ops.contract import Role
from qwick.ops.native import NativeBackend, NativeWeight, default_threads, describe_machine, read_stream
from qwick.ops.product import Product

STREAM_BYTES = 512 << 20  # far larger than caches; address translation, too, slows a large stream more than a small one
WEIGHT_BYTES = 160 << 20  # of the matrices that decode rows are timed on, as small as a model's: that is what counts
NARROW, WIDE = (2048, 1024), (6144, 2560)  # their shapes: rows, columns
PANEL, PROMPT_ROWS = (1024, 2048), 256  # the matrix and the rows that prompts are timed on
SLICE_SECONDS = 0.2  # the best of what fits is taken: others on the machine only make things slower
WINDOW_ROWS = 1024  # rows handed over at once while loading


@dataclass(frozen=True, slots=True)
class FamilyRates:
    """What the kernels of one family reach on a matrix alone.

    decode_bytes  bytes of weights per second, one decode row, rows of some 2,560 values and more
    narrow_bytes  the same with rows of 1,024
    prompt_madds  multiply-adds per second, many prompt rows
    load_bytes    bytes of file blocks per second regrouped into fresh memory
    """

    decode_bytes: float
    narrow_bytes: float
    prompt_madds: float
    load_bytes: float


@dataclass(frozen=True, slots=True)
class MachineLimits:
    """A machine as predictions see it.

    read_bytes    bytes per second that a plain read stream reaches, all decode threads together
    copy_bytes    bytes per second from the page cache into memory, one thread
    """

    isa: str
    threads: int
    threads_batch: int
    available_bytes: int
    read_bytes: float
    copy_bytes: float
    families: Mapping[Family, FamilyRates]

    @property
    def matrix_madds(self) -> float:
        """Multiply-adds per second of the fastest family's prompt rows."""
        return max(rates.prompt_madds for rates in self.families.values())


def measure_limits(
    formats: Iterable[Format], threads: int | None = None, threads_batch: int | None = None
) -> MachineLimits:
    """Measure with the kernels that would be used; takes about a second for each format."""
    machine = describe_machine()
    threads = default_threads()[0] if threads is None else threads
    threads_batch = threads if threads_batch is None else threads_batch
    read_bytes = read_stream(min(STREAM_BYTES, machine.available_bytes // 4), threads, SLICE_SECONDS)
    by_family = {format.family: format for format in formats}
    families = {family: _family_rates(format, threads, threads_batch) for family, format in by_family.items()}
    return MachineLimits(
        machine.isa, threads, threads_batch, machine.available_bytes, read_bytes, _copy_rate(), families
    )


def _family_rates(format: Format, threads: int, threads_batch: int) -> FamilyRates:
    """Weights are zeros, which take as long as others."""
    wide, load_bytes = _decode_rates(format, WIDE, threads, threads_batch)
    narrow, _ = _decode_rates(format, NARROW, threads, threads_batch)
    backend = NativeBackend(threads, threads_batch)
    rows, cols = PANEL
    panel = Product(backend, _zeros(backend, format, PANEL), PROMPT_ROWS)
    x = np.ones((PROMPT_ROWS, cols), np.float32)
    prompt = best_seconds(lambda: panel(x, Role.PROMPT))
    return FamilyRates(wide, narrow, rows * cols * PROMPT_ROWS / prompt, load_bytes)


def _decode_rates(format: Format, shape: tuple[int, int], threads: int, threads_batch: int) -> tuple[float, float]:
    """(bytes of weights read per second by one decode row, bytes of file blocks stored per second before)."""
    rows, cols = shape
    backend = NativeBackend(threads, threads_batch)
    begin = perf_counter()
    weights = [_zeros(backend, format, shape) for _ in range(-(-WEIGHT_BYTES // format.family.num_bytes(rows, cols)))]
    seconds = perf_counter() - begin
    product = Product(backend, weights[0], 1, weights[1:])
    x = np.ones((1, cols), np.float32)
    num_bytes = sum(weight.num_bytes for weight in weights)
    decode = num_bytes / best_seconds(lambda: product(x, Role.DECODE))
    return decode, len(weights) * format.num_bytes(rows, cols) / seconds


def _zeros(backend: NativeBackend, format: Format, shape: tuple[int, int]) -> NativeWeight:
    """A matrix, stored as a file of this format would give it, from memory that stays in the cache."""
    rows, cols = shape
    if format.is_blocks:
        window: NDArray[Any] = np.zeros((min(rows, WINDOW_ROWS), format.num_bytes(1, cols)), np.uint8)
    else:
        window = np.zeros((min(rows, WINDOW_ROWS), cols), np.uint16 if format.block_bytes == 2 else np.float32)
    windows = ((row, window[: rows - row]) for row in range(0, rows, WINDOW_ROWS))
    return backend.add_matrix("zeros", shape, format, windows, format)


def _copy_rate(num_bytes: int = 64 << 20) -> float:
    """Reading a file that is in the page cache, window by window into the same memory; 0 where it cannot be tried."""
    if not hasattr(os, "memfd_create"):
        return 0.0
    window = bytearray(8 << 20)
    file = os.memfd_create("qwick")
    try:
        for _ in range(num_bytes // len(window)):
            os.write(file, window)

        def read() -> None:
            for offset in range(0, num_bytes, len(window)):
                os.preadv(file, [window], offset)

        return num_bytes / best_seconds(read)
    finally:
        os.close(file)


def best_seconds(work: Callable[[], Any], seconds: float = SLICE_SECONDS, least: int = 3) -> float:
    """The shortest of as many runs as fit into `seconds`, at least `least`."""
    best, end = float("inf"), perf_counter() + seconds
    while least > 0 or perf_counter() < end:
        begin = perf_counter()
        work()
        best = min(best, perf_counter() - begin)
        least -= 1
    return best
