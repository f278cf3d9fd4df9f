"""A model's tensors into a backend, window by window, in canonical order."""

import warnings
from collections import Counter
from collections.abc import Callable
from math import prod

from qwick.errors import FormatWarning
from qwick.formats import BF16, F32, FILE_DTYPES, Format
from qwick.model.names import TensorSpec
from qwick.model.qwen3_5 import Qwen3_5, Tensors
from qwick.model.source import Source
from qwick.ops.contract import Backend, Progress, W
from qwick.weights.gguf_types import DECODED


def load_network(
    source: Source,
    backend: Backend[W],
    format: Format | None = None,
    progress: Progress | None = None,
    beside: Callable[[], None] | None = None,
    packed: Callable[[TensorSpec, Format], W] | None = None,
) -> Qwen3_5[W]:
    """Read every tensor of `source` into `backend`; matrices in `format`, or as the file has them.

    `beside` is called when what is left to read needs little of Python: the time to start other work.
    `packed` gives the matrices where something else than `source` has them, in the form that memory wants.

    Warns (FormatWarning) about types that are decoded because no kernel reads them. Raises CheckpointError when a file
    cannot deliver.
    """
    if packed is None:
        _warn_decoded(source, format)
    by_name = {spec.name: _load(spec, source, backend, format, progress, packed) for spec in source.specs}
    if beside:
        beside()
    backend.read_files(progress)
    return Qwen3_5(source.config, Tensors(by_name))


def memory_format(spec: TensorSpec, file_dtype: str, format: Format | None) -> Format:
    """The format a tensor takes in memory: the one asked for where it fits, else the file's, losslessly."""
    # F32 is not coarse: it spares prompt rows the rounding to bf16, the gates' too.
    if not spec.matrix or format == F32:
        return F32
    if format is None or not spec.coarse or spec.shape[-1] % format.block_len:
        return FILE_DTYPES.get(file_dtype, BF16)  # BF16: for types that are decoded
    return format


def memory_bytes(source: Source, format: Format | None = None) -> int:
    """What the weights will take, each tensor on whole cache lines."""
    return sum(-(-_num_bytes(spec, source, format) // 64) * 64 for spec in source.specs)


def matrix_bytes(source: Source, format: Format | None = None) -> int:
    """What the matrices among them hold."""
    return sum(_num_bytes(spec, source, format) for spec in source.specs if spec.matrix)


def _num_bytes(spec: TensorSpec, source: Source, format: Format | None) -> int:
    if not spec.matrix:
        return 4 * prod(spec.shape)
    return memory_format(spec, source.info(spec).dtype, format).family.num_bytes(*spec.shape)


def _load(
    spec: TensorSpec,
    source: Source,
    backend: Backend[W],
    format: Format | None,
    progress: Progress | None,
    packed: Callable[[TensorSpec, Format], W] | None,
) -> W:
    if not spec.matrix:
        return backend.add_vector(spec.name, source.vector(spec, progress))
    rows, cols = spec.shape
    dtype = source.info(spec).dtype
    held, stored = FILE_DTYPES.get(dtype), memory_format(spec, dtype, format)
    if packed:
        return packed(spec, stored)
    blocks = held if held is not None and held.is_blocks else None
    return backend.add_matrix(spec.name, (rows, cols), stored, source.rows(spec, progress), blocks)


def _warn_decoded(source: Source, format: Format | None) -> None:
    decoded = [spec for spec in source.specs if source.info(spec).dtype in DECODED]
    if not decoded:
        return
    types = Counter(source.info(spec).dtype for spec in decoded)
    listed = ", ".join(f"{count} of type {name}" for name, count in types.items())
    file_bytes = sum(source.info(spec).num_bytes for spec in decoded)
    held_bytes = sum(_num_bytes(spec, source, format) for spec in decoded)
    remedy = "" if format else "; a Q4_K_M file, or --format q4_k, takes less and is faster"
    warnings.warn(
        f"{source.path.name}: no kernel reads {listed}; decoded, these tensors take {held_bytes >> 20} MiB of memory "
        f"instead of {file_bytes >> 20}{remedy}",
        FormatWarning,
        stacklevel=2,
    )
