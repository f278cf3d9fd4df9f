"""The native ops: a network is recorded once and C++ replays it for each batch, in one call without the GIL.

The only module that imports `qwick._kernels`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qwick import __version__, _kernels
from qwick.errors import CheckpointError, KernelError, PackError
from qwick.formats import Format
from qwick.ops.contract import (
    AttentionHeads,
    Batch,
    CacheShape,
    CommitBatch,
    DeltaHeads,
    FileRows,
    Float32,
    Int32,
    LogitEdits,
    Network,
    Progress,
    Result,
    Windows,
)

NativeWeight: TypeAlias = _kernels.Tensor
Substrings: TypeAlias = _kernels.Substrings
Buffer = NewType("Buffer", int)
"""A value of a program being recorded: its index."""

VERSION = __version__  # of qwick: another one may encode otherwise
LAYOUT_VERSION = _kernels.layout_version  # of weights in memory: kernels/blocks.h
PACKED_PIECE_BYTES = _kernels.packed_piece_bytes  # that have one checksum
PROGRESS_SECONDS = 0.1  # between two reports while files are read

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_NO_SNAPSHOTS = np.empty((0, 2), np.int32)
_NO_PAGES = np.empty(0, np.int32)
_NO_EDITS = LogitEdits(np.empty(0, np.int32), np.empty(0, np.int32), np.empty((0, 3), np.float32))


class Recorder:
    """`Ops[Buffer, NativeWeight, None]`: every op is written down, nothing is computed. There is no step yet."""

    def __init__(self, max_tokens: int) -> None:
        self._native = _kernels.Recorder(max_tokens)

    def embed(self, table: NativeWeight, step: None) -> Buffer:
        return Buffer(self._native.embed(table))

    def hidden(self, step: None) -> Buffer:
        return Buffer(self._native.hidden())

    def concat(self, left: Buffer, right: Buffer) -> Buffer:
        return Buffer(self._native.concat(left, right))

    def rms_norm(self, x: Buffer, weight: NativeWeight, eps: float) -> Buffer:
        return Buffer(self._native.rms_norm(x, weight, eps))

    def linear(self, x: Buffer, weights: Sequence[NativeWeight]) -> tuple[Buffer, ...]:
        return tuple(Buffer(i) for i in self._native.linear(x, list(weights)))

    def linear_add(self, x: Buffer, weight: NativeWeight, residual: Buffer) -> Buffer:
        return Buffer(self._native.linear_add(x, weight, residual))

    def gate_up(self, x: Buffer, gate: NativeWeight, up: NativeWeight) -> Buffer:
        return Buffer(self._native.gate_up(x, gate, up))

    def causal_conv(self, qkv: Buffer, weight: NativeWeight, layer: int, step: None) -> Buffer:
        return Buffer(self._native.causal_conv(qkv, weight, layer))

    def gated_delta(
        self,
        qkv: Buffer,
        a: Buffer,
        b: Buffer,
        decay: NativeWeight,
        dt_bias: NativeWeight,
        layer: int,
        heads: DeltaHeads,
        step: None,
    ) -> Buffer:
        return Buffer(self._native.gated_delta(qkv, a, b, decay, dt_bias, layer, _delta(heads)))

    def gated_rms_norm(self, x: Buffer, gate: Buffer, weight: NativeWeight, eps: float) -> Buffer:
        return Buffer(self._native.gated_rms_norm(x, gate, weight, eps))

    def norm_rope(
        self, x: Buffer, weight: NativeWeight, eps: float, heads: AttentionHeads, step: None, *, gated: bool
    ) -> Buffer:
        return Buffer(self._native.norm_rope(x, weight, eps, _attention(heads), gated))

    def attention(
        self,
        query: Buffer,
        key: Buffer,
        value: Buffer,
        query_gate: Buffer,
        layer: int,
        heads: AttentionHeads,
        step: None,
    ) -> Buffer:
        return Buffer(self._native.attention(query, key, value, query_gate, layer, _attention(heads)))

    def head(self, x: Buffer, table: NativeWeight, step: None) -> Buffer:
        return Buffer(self._native.head(x, table))

    def replay(
        self,
        conv: NativeWeight,
        decay: NativeWeight,
        dt_bias: NativeWeight,
        layer: int,
        heads: DeltaHeads,
        step: None,
    ) -> None:
        self._native.replay(conv, decay, dt_bias, layer, _delta(heads))

    def finish(self, hidden: Buffer | None, head: Buffer | None, runtime: _kernels.Runtime) -> _kernels.Program:
        """The program that computes `hidden` and `head`."""
        return self._native.finish(-1 if hidden is None else hidden, -1 if head is None else head, runtime)


class NativeProgram:
    """A recorded network. `run` raises KernelError for a malformed batch and CapacityError for one that is too large,
    before anything is computed; runs without tokens are malformed. CapacityError also when memory ends on the way: what
    the cache holds of the batch's sequences is lost then."""

    def __init__(self, native: _kernels.Program) -> None:
        self._native = native

    @property
    def replay_seconds(self) -> float:
        """Wall clock of the last run's replay in C++: what is left of a step is Python and the binding."""
        return self._native.replay_seconds

    @property
    def num_allocations(self) -> int:
        """Of memory by the last run, in C++: none once a batch as large was seen."""
        return self._native.num_allocations

    @property
    def num_sections(self) -> int:
        """Parallel sections of the last run, each with a barrier at its end; 0 with one thread."""
        return self._native.num_sections

    @property
    def ops(self) -> list[tuple[str, str, int]]:
        """In the order they run: (kind, names of the matrices it reads, their bytes in memory)."""
        return self._native.ops

    def time_ops(self, *, on: bool) -> None:
        """From the next run on, note what each op takes."""
        self._native.time_ops(on)

    @property
    def op_seconds(self) -> list[float]:
        """Wall clock of each op of the last run; empty unless they are timed."""
        return self._native.op_seconds

    @property
    def buffer_bytes(self) -> int:
        """Memory of the activations."""
        return self._native.buffer_bytes

    @property
    def scratch_bytes(self) -> int:
        """Memory that the batches so far needed beside: of single ops, and of logits."""
        return self._native.scratch_bytes

    def run(self, batch: Batch | CommitBatch) -> Result:
        if isinstance(batch, CommitBatch):
            commits = [(c.slot, c.num_tokens, c.context_len) for c in batch.commits]
            self._native.commit(_int32(commits).reshape(-1, 3))
            return Result()
        runs, pages, snapshots = _flat_runs(batch)
        edits = _NO_EDITS if batch.edits is None else _converted(batch.edits)
        logits, top_ids, top_logits, logsumexp, hidden = self._native.run(
            np.ascontiguousarray(batch.token_ids, np.int32),
            np.ascontiguousarray(batch.rope_cos, np.float32),
            np.ascontiguousarray(batch.rope_sin, np.float32),
            runs,
            pages,
            snapshots,
            np.ascontiguousarray(batch.wanted_rows, np.int32),
            batch.top_k,
            batch.logsumexp,
            None if batch.hidden is None else np.ascontiguousarray(batch.hidden, np.float32),
            edits.row_starts,
            edits.token_ids,
            edits.values,
        )
        return Result(logits, top_ids, top_logits, logsumexp, hidden)


class NativeBackend:
    """`Backend[NativeWeight]`. One caller at a time is served; others wait.

    threads, threads_batch   for batches without and with prompt rows; None: `default_threads()`
    isa                      the instruction set; None: QWICK_ISA, or the best one. KernelError names the possible ones
    reserve_bytes            weights' memory taken as one piece, where their size is known
    lock_memory              keep weights from being swapped out (CapacityError when the system forbids it)
    """

    def __init__(
        self,
        threads: int | None = None,
        threads_batch: int | None = None,
        isa: str | None = None,
        *,
        reserve_bytes: int = 0,
        lock_memory: bool = False,
    ) -> None:
        threads = default_threads()[0] if threads is None else threads
        threads_batch = threads if threads_batch is None else threads_batch
        self.threads, self.threads_batch = threads, threads_batch
        self._runtime = _kernels.Runtime(_asked_isa(isa), threads, threads_batch, reserve_bytes)
        self._reader = _kernels.FileReader()
        self._noted: list[tuple[str, Path, bool]] = []  # what the reader will read: name, file, whether it is a pack
        if lock_memory:
            self._runtime.lock_memory()

    @property
    def isa(self) -> str:
        return self._runtime.isa

    @property
    def weight_bytes(self) -> int:
        return self._runtime.weight_bytes

    @property
    def cache_bytes(self) -> int:
        return self._runtime.cache_bytes

    def set_threads(self, threads: int, threads_batch: int) -> None:
        """From the next run on."""
        self._runtime.set_threads(threads, threads_batch)
        self.threads, self.threads_batch = threads, threads_batch

    def add_matrix(
        self, name: str, shape: tuple[int, int], format: Format, windows: Windows, source: Format | None = None
    ) -> NativeWeight:
        tensor = self._runtime.add_matrix(name, *shape, format.family.value)
        if isinstance(windows, FileRows):
            self._reader.add(tensor, windows.fd, windows.offset, windows.format.ggml_type)
            self._noted.append((name, windows.path, False))
            return tensor
        for first, rows in windows:
            if rows.dtype.name == "uint8" and source is None:
                raise KernelError(f"{name} was given blocks without the format that they are of")
            if rows.dtype.name not in ("float32", "float16", "uint16", "uint8"):
                raise KernelError(
                    f"{name} was given {rows.dtype} rows; f32, f16, bf16 (uint16) and blocks can be stored"
                )
            tensor.write(first, np.ascontiguousarray(rows), self._runtime, source.ggml_type if source else -1)
        if not tensor.complete:
            raise KernelError(f"{name} was not given all of its {shape[0]} rows")
        return tensor

    def add_packed(
        self, name: str, shape: tuple[int, int], format: Format, path: Path, fd: int, offset: int, sums: Sequence[int]
    ) -> NativeWeight:
        """A matrix that lies in a file as memory holds it; `read_files` reads it and checks `packed_sums`.

        PackError there when it cannot; KernelError here when `sums` are not as many as its pieces.
        """
        tensor = self._runtime.add_matrix(name, *shape, format.family.value)
        self._reader.add_packed(tensor, fd, offset, sums)
        self._noted.append((name, path, True))
        return tensor

    def read_files(self, progress: Progress | None = None) -> None:
        """In one call without the GIL, on a thread of its own: this one looks after progress and Ctrl-C."""
        reader, noted = self._reader, self._noted
        self._reader, self._noted = _kernels.FileReader(), []
        reported = 0
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(reader.run, self._runtime)
            try:
                while not wait([reading], PROGRESS_SECONDS).done:
                    now = reader.bytes_read
                    if progress:
                        progress(now - reported)
                    reported = now
            except BaseException:
                reader.stop()
                raise
        if progress:
            progress(reader.bytes_read - reported)
        index, error = reading.result()
        if index >= 0:
            name, path, is_pack = noted[index]
            reason = os.strerror(error) if error > 0 else "the file became shorter while it was read"
            if is_pack:
                reason = reason if error >= 0 else "the checksum is wrong"
                raise PackError(f"{path}: {name}: {reason}")
            raise CheckpointError(f"{path}: cannot read {name}: {reason}; copy or download it again")

    def add_vector(self, name: str, values: Float32) -> NativeWeight:
        return self._runtime.add_vector(name, np.ascontiguousarray(values, np.float32))

    def open_cache(self, shape: CacheShape) -> None:
        self._runtime.open_cache(
            shape.num_attention_layers,
            shape.num_delta_layers,
            _attention(shape.attention),
            _delta(shape.delta),
            shape.conv_kernel,
            shape.num_pages,
            shape.num_slots,
            shape.page_len,
            shape.kv_format,
        )

    def copy_slot(self, source: int, target: int) -> None:
        self._runtime.copy_slot(source, target)

    def copy_page(self, source: int, target: int) -> None:
        self._runtime.copy_page(source, target)

    def save_state(self, slot: int, pages: Sequence[int]) -> None:
        self._runtime.save_state(slot, [int(page) for page in pages])

    def load_state(self, pages: Sequence[int], slot: int) -> None:
        self._runtime.load_state([int(page) for page in pages], slot)

    def compile(self, network: Network[NativeWeight], *, max_tokens: int) -> NativeProgram:
        recorder = Recorder(max_tokens)
        outputs = network(recorder, None)
        return NativeProgram(recorder.finish(outputs.hidden, outputs.head, self._runtime))


@dataclass(frozen=True, slots=True)
class Machine:
    """What `qwick doctor` tells about this machine."""

    possible_isas: tuple[str, ...]
    isa: str  # the one that would be used
    kernel_choice: Mapping[str, str]  # leaf kernel -> the ISA that provides it
    threads: int
    threads_reason: str
    huge_pages: str  # "always", "madvise", "never" or "unknown"
    available_bytes: int


def describe_machine(isa: str | None = None) -> Machine:
    """Raises KernelError for an `isa` (or QWICK_ISA) that is unknown or impossible here."""
    threads, reason = default_threads()
    chosen = _asked_isa(isa)
    return Machine(
        possible_isas=tuple(_kernels.possible_isas()),
        isa=_kernels.chosen_isa(chosen),
        kernel_choice=_kernels.kernel_choice(chosen),
        threads=threads,
        threads_reason=reason,
        huge_pages=_huge_pages(),
        available_bytes=_kernels.available_memory(),
    )


def default_threads() -> tuple[int, str]:
    """(how many threads are used when nobody says, why)."""
    return _kernels.default_thread_count()


def most_threads() -> int:
    """Hardware threads that this process may use: two a core where those are two."""
    return _kernels.most_thread_count()


class Encoder:
    """f32 rows -> blocks of a file, on threads that stay from call to call. `threads` None: `default_threads()`."""

    def __init__(self, threads: int | None = None) -> None:
        self._native = _kernels.Encoder(default_threads()[0] if threads is None else threads)

    def encode(self, values: Float32, format: Format) -> NDArray[np.uint8]:
        """f32 [n, k] -> the blocks of a file, uint8 [n, row_bytes]; `k` is a multiple of `format.block_len`.

        An infinity or a NaN gives its block a NaN scale. Raises KernelError for a shape or a format that does not fit.
        """
        if values.ndim != 2:
            raise KernelError(f"rows to encode must be a matrix, not of shape {list(values.shape)}")
        return self._native.encode(np.ascontiguousarray(values, np.float32), format.ggml_type)


def encode(values: Float32, format: Format, threads: int | None = None) -> NDArray[np.uint8]:
    """What an Encoder of so many threads makes of `values`."""
    return Encoder(threads).encode(values, format)


def decode(blocks: NDArray[Any], format: Format, threads: int | None = None) -> Float32:
    """Rows as a file of any format holds them (uint8 [n, row_bytes], or an array of their values) -> f32 [n, k], exact.

    Raises KernelError for rows that are not whole blocks.
    """
    if blocks.ndim != 2:
        raise KernelError(f"rows to decode must be a matrix, not of shape {list(blocks.shape)}")
    rows = np.ascontiguousarray(blocks).view(np.uint8)
    return _kernels.decode(rows, format.ggml_type, default_threads()[0] if threads is None else threads)


def scan_strings(data: NDArray[np.uint8], ends: NDArray[np.uint64], done: int) -> int:
    """Where each of many strings ends that stand after their lengths (8 bytes): `ends` [n], `done` of them known.

    Returns how many are known now: as many as have their length in `data`. The last may end behind it.
    """
    return _kernels.scan_strings(data, ends, done)


def strings(data: NDArray[np.uint8], ends: NDArray[np.uint64]) -> list[str]:
    """Strings that `scan_strings` found, all in `data`. Raises UnicodeDecodeError."""
    return _kernels.strings(data, ends)


def string_pairs(data: NDArray[np.uint8], ends: NDArray[np.uint64]) -> list[tuple[str, str] | None]:
    """What stands on either side of the one space in each of them; None where there is not just one."""
    return _kernels.string_pairs(data, ends)


def check_vocabulary(
    tokens: NDArray[np.uint8],
    token_ends: NDArray[np.uint64],
    kinds: NDArray[np.uint8],
    merges: NDArray[np.uint8],
    merge_ends: NDArray[np.uint64],
) -> tuple[str, int]:
    """What is wrong with a vocabulary and its merges, as `scan_strings` found them, and which of them has it.

    "token twice", "merge of not two" (with a space between), "merge of no token" (a part, or what it makes); "" when
    nothing is. `kinds` of tokens: 0 not in use, 1 of the vocabulary, 2 outside of it. Without the GIL.
    """
    return _kernels.check_vocabulary(tokens, token_ends, kinds, merges, merge_ends)


def substrings(words: Iterable[str], most: int) -> Substrings:
    """All substrings of `words`; `find` tells which strings of many are among them. CapacityError: more than `most`."""
    return _kernels.Substrings(list(words), most)


def packed_sums(tensor: NativeWeight) -> list[int]:
    """The checksum of each piece of a tensor's memory, for `NativeBackend.add_packed`."""
    return _kernels.packed_sums(tensor)


def read_stream(num_bytes: int, threads: int, seconds: float) -> float:
    """Bytes per second that `threads` threads read from memory at best: the limit of decoding.

    Give a buffer larger than the caches. Raises CapacityError where it does not fit, KernelError for nonsense.
    """
    return _kernels.read_stream(num_bytes, threads, seconds)


def _asked_isa(isa: str | None) -> str:
    return os.environ.get("QWICK_ISA", "") if isa is None else isa


def _huge_pages() -> str:
    try:
        text = _HUGE_PAGES.read_text()
    except OSError:
        return "unknown"
    return text[text.find("[") + 1 : text.find("]")]


def _flat_runs(batch: Batch) -> tuple[Int32, Int32, Int32]:
    """Runs as the rows that `kernels/batch.h` describes; all pages, all snapshots end to end."""
    fields = [
        (r.num_tokens, r.role, r.context_len, r.slot, r.commit, len(r.pages), len(r.snapshots)) for r in batch.runs
    ]
    pages = [_int32(run.pages) for run in batch.runs]
    snapshots = [pair for run in batch.runs for pair in run.snapshots]
    return (
        _int32(fields).reshape(-1, 7),
        pages[0] if len(pages) == 1 else np.concatenate([_NO_PAGES, *pages]),
        _int32(snapshots) if snapshots else _NO_SNAPSHOTS,
    )


def _converted(edits: LogitEdits) -> LogitEdits:
    """As the binding takes them."""
    return LogitEdits(
        np.ascontiguousarray(edits.row_starts, np.int32),
        np.ascontiguousarray(edits.token_ids, np.int32),
        np.ascontiguousarray(edits.values, np.float32),
    )


def _int32(values: Any) -> Int32:
    try:
        return np.ascontiguousarray(values, np.int32)
    except OverflowError:
        raise KernelError("malformed batch: a number does not fit 32 bits") from None


def _attention(heads: AttentionHeads) -> _kernels.AttentionHeads:
    return _kernels.AttentionHeads(heads.num_q, heads.num_kv, heads.head_dim, heads.rotary_dim)


def _delta(heads: DeltaHeads) -> _kernels.DeltaHeads:
    return _kernels.DeltaHeads(heads.num_k, heads.num_v, heads.k_dim, heads.v_dim)
