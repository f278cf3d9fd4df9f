"""A checkpoint's tensors into a backend, window by window, in canonical order."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwick.errors import CheckpointError
from qwick.formats import F32, FILE_DTYPES, Format, widened
from qwick.model.config import ModelConfig
from qwick.model.names import TensorSpec, file_names, has_head, has_mtp, tensor_specs
from qwick.model.qwen3_5 import Qwen3_5, Tensors
from qwick.ops.contract import Backend, Progress, W
from qwick.weights.checkpoint import Checkpoint

WINDOW_BYTES = 8 << 20  # of the file's rows held at once, besides the weights themselves


def resolve_config(config: ModelConfig, checkpoint: Checkpoint) -> ModelConfig:
    """Settle what the tensors decide: an MTP block that was not shipped, tying that config.json leaves out."""
    names = checkpoint.tensors.keys()
    tied = config.tie_word_embeddings
    return config.resolved(tie_word_embeddings=not has_head(names) if tied is None else tied, has_mtp=has_mtp(names))


def load_network(
    checkpoint: Checkpoint,
    config: ModelConfig,
    backend: Backend[W],
    format: Format | None = None,
    progress: Progress | None = None,
) -> Qwen3_5[W]:
    """Read every tensor of `config` into `backend`; matrices in `format`, or as the file has them.

    Raises CheckpointError naming tensors that are missing, unmapped, or of a wrong shape or dtype.
    """
    config = resolve_config(config, checkpoint)
    specs = list(tensor_specs(config))
    files = file_names(specs, checkpoint.tensors.keys())
    for spec in specs:
        _check(spec, files[spec.name], checkpoint)
    by_name = {spec.name: _load(spec, files[spec.name], checkpoint, backend, format, progress) for spec in specs}
    return Qwen3_5(config, Tensors(by_name))


def memory_format(spec: TensorSpec, file_dtype: str, format: Format | None) -> Format:
    """The format a matrix takes in memory: the one asked for where it fits, else the file's, losslessly."""
    lossless = FILE_DTYPES[file_dtype]
    if format == F32:  # not coarse: it spares prompt rows the rounding to bf16, the gates' too
        return F32
    if format is None or not spec.coarse or spec.shape[-1] % format.block_len:
        return lossless
    return format


def _check(spec: TensorSpec, file_name: str, checkpoint: Checkpoint) -> None:
    info = checkpoint.tensors[file_name]
    if info.dtype not in FILE_DTYPES:
        raise CheckpointError(f"{file_name} has dtype {info.dtype}; qwick reads {', '.join(FILE_DTYPES)}")
    if tuple(info.shape) != spec.shape:
        raise CheckpointError(f"{file_name} has shape {list(info.shape)}, but config.json asks for {list(spec.shape)}")


def _load(
    spec: TensorSpec,
    file_name: str,
    checkpoint: Checkpoint,
    backend: Backend[W],
    format: Format | None,
    progress: Progress | None,
) -> W:
    info = checkpoint.tensors[file_name]
    if not spec.matrix:
        values = widened(checkpoint.read(file_name, 0, spec.shape[0])).reshape(spec.shape)
        if progress:
            progress(info.num_bytes)
        canonical = spec.to_canonical(values)
        # conv1d is [channels, 1, taps] in the file.
        return backend.add_vector(spec.name, canonical[:, 0] if canonical.ndim == 3 else canonical)
    windows = _windows(spec, file_name, checkpoint, progress)
    rows, cols = spec.shape
    return backend.add_matrix(spec.name, (rows, cols), memory_format(spec, info.dtype, format), windows)


def _windows(
    spec: TensorSpec, file_name: str, checkpoint: Checkpoint, progress: Progress | None
) -> Iterator[tuple[int, NDArray[Any]]]:
    """(first canonical row, rows): contiguous stretches of the file's rows, in canonical order."""
    info = checkpoint.tensors[file_name]
    num_rows = spec.shape[0]
    row_bytes = max(1, info.num_bytes // num_rows)
    most = max(1, WINDOW_BYTES // row_bytes)
    for target, source, count in _stretches(spec.row_order, num_rows, most):
        rows = checkpoint.read(file_name, source, source + count)
        if progress:
            progress(count * row_bytes)
        yield target, rows if spec.col_order is None else np.ascontiguousarray(rows[:, spec.col_order])


def _stretches(order: NDArray[np.int64] | None, num_rows: int, most: int) -> Iterator[tuple[int, int, int]]:
    """(canonical row, file row, count) of consecutive rows, none longer than `most`."""
    if order is None:
        order = np.arange(num_rows)
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    for begin, end in zip([0, *breaks], [*breaks, num_rows], strict=True):
        for row in range(int(begin), int(end), most):
            yield row, int(order[row]), min(most, int(end) - row)
