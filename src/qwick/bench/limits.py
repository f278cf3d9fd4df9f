"""The limits of this machine, measured in a few seconds: memory, matrix products, loading."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwick.formats import Family, Format
from qwick.ops.contract import Role
from qwick.ops.native import NativeBackend, default_threads, describe_machine, read_stream
from qwick.ops.product import Product

STREAM_BYTES = 256 << 20  # larger than the caches of most machines
WEIGHT_BYTES = 96 << 20  # of the matrix that decode rows are timed on
COLS = 2048  # a hidden size; a multiple of every block
PANEL_ROWS, PROMPT_ROWS = 1024, 256  # the matrix and the rows that prompts are timed on
SLICE_SECONDS = 0.2  # the best of what fits is taken: others on the machine only make things slower
WINDOW_ROWS = 1024  # rows handed over at once while loading


@dataclass(frozen=True, slots=True)
class FamilyRates:
    """What the kernels of one family reach on a matrix alone.

    decode_bytes  bytes of weights per second, one decode row
    prompt_madds  multiply-adds per second, many prompt rows
    load_bytes    bytes of file blocks per second regrouped into fresh memory
    """

    decode_bytes: float
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
    """Measure with the kernels that would be used; takes about half a second for each format."""
    machine = describe_machine()
    threads = default_threads()[0] if threads is None else threads
    threads_batch = threads if threads_batch is None else threads_batch
    read_bytes = read_stream(STREAM_BYTES, threads, SLICE_SECONDS)
    by_family = {format.family: format for format in formats}
    families = {family: _family_rates(format, threads, threads_batch) for family, format in by_family.items()}
    return MachineLimits(
        machine.isa, threads, threads_batch, machine.available_bytes, read_bytes, _copy_rate(), families
    )


def _family_rates(format: Format, threads: int, threads_batch: int) -> FamilyRates:
    """Weights are zeros, which take as long as others."""
    backend = NativeBackend(threads, threads_batch)
    rows = WEIGHT_BYTES // format.family.num_bytes(16, COLS) * 16
    begin = perf_counter()
    weight = backend.add_matrix("decode", (rows, COLS), format, _zero_windows(rows, format), format)
    load_seconds = perf_counter() - begin
    product = Product(backend, weight, 1)
    row = np.ones((1, COLS), np.float32)
    decode = best_seconds(lambda: product(row, Role.DECODE))

    panel = backend.add_matrix("prompt", (PANEL_ROWS, COLS), format, _zero_windows(PANEL_ROWS, format), format)
    panel_product = Product(backend, panel, PROMPT_ROWS)
    rows_in = np.ones((PROMPT_ROWS, COLS), np.float32)
    prompt = best_seconds(lambda: panel_product(rows_in, Role.PROMPT))
    return FamilyRates(
        decode_bytes=weight.num_bytes / decode,
        prompt_madds=PANEL_ROWS * COLS * PROMPT_ROWS / prompt,
        load_bytes=format.num_bytes(rows, COLS) / load_seconds,
    )


def _zero_windows(rows: int, format: Format) -> Iterator[tuple[int, NDArray[Any]]]:
    """As a file of this format would give them, from memory that stays in the cache."""
    if format.is_blocks:
        window: NDArray[Any] = np.zeros((WINDOW_ROWS, format.num_bytes(1, COLS)), np.uint8)
    else:
        window = np.zeros((WINDOW_ROWS, COLS), np.uint16 if format.block_bytes == 2 else np.float32)
    return ((row, window[: rows - row]) for row in range(0, rows, WINDOW_ROWS))


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
