"""GGUF files: the tensors of one, and the parts of a model that was split.

Blocks of the formats that the kernels know come as they are; other quantised types are decoded when they are read.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwick.errors import CapacityError, CheckpointError
from qwick.weights.files import DOWNLOAD_AGAIN, MAX_SHARDS, Place, RegularFile, TensorInfo, named, shown
from qwick.weights.gguf_header import Header, Metadata, read_header
from qwick.weights.gguf_types import DECODED, TYPES, Stored, decode

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_SPLIT_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


class GgufFile:
    """Random access to the tensors of one file. Raises CheckpointError for whatever is wrong with it.

    Reads use no shared state: threads may read side by side.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = RegularFile(path)
        try:
            header = read_header(self._file)
            tensors = _check_layout(header, self._file)
        except BaseException:
            self._file.close()
            raise
        self.metadata: Metadata = header.metadata
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self._begins = {name: header.data_start + entry.offset for name, entry in header.entries.items()}
        self._kinds = {name: TYPES[entry.ggml_type] for name, entry in header.entries.items()}

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of the first dimension, as `Checkpoint.read` says."""
        info, kind = self.tensors[name], self._kinds[name]
        rows, *row_shape = info.shape or (1,)
        if not 0 <= start <= stop <= rows:
            raise ValueError(f"rows [{start}, {stop}) of {name!r}, which has {rows}")
        if kind.block_len > 1 and not row_shape:
            return self._decoded(name, kind, self._bytes(name, 0, (1, info.num_bytes)))[0, start:stop]
        if kind.block_len > 1:
            row_shape[-1] = row_shape[-1] // kind.block_len * kind.block_bytes
            stored = np.dtype(np.uint8)
        else:
            stored = np.dtype("<f8") if kind.name == "F64" else _DTYPES.get(kind.name)
        if stored is None:
            raise CheckpointError(f"{self.path}: tensor {shown(name)} is stored as {kind.name}, which no weights are")
        row_bytes = math.prod(row_shape) * stored.itemsize
        values = self._bytes(name, start * row_bytes, (stop - start, row_bytes)).view(stored)
        values = values.reshape(stop - start, *row_shape)
        return self._decoded(name, kind, values) if kind.name in DECODED else values

    def place(self, name: str) -> Place:
        """Where a tensor lies."""
        return Place(self.path, self._file.fd, self._begins[name])

    def _bytes(self, name: str, offset: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        try:
            data = np.empty(shape, np.uint8)
        except MemoryError:
            raise CapacityError(f"{self.path}: no memory for {math.prod(shape)} bytes of {shown(name)}") from None
        if data.size:
            self._file.read_into(data.reshape(-1).data, self._begins[name] + offset)
        return data

    def _decoded(self, name: str, kind: Stored, rows: NDArray[Any]) -> NDArray[np.float32]:
        if rows.shape[-1] == 0:  # the gguf package cannot decode nothing
            return rows.astype(np.float32)
        try:
            return decode(kind, rows)
        except NotImplementedError:
            raise CheckpointError(
                f"{self.path}: tensor {shown(name)} is stored as {kind.name}, which this version of the gguf package "
                "cannot decode; `pip install -U gguf`, or take a file in another format"
            ) from None

    def close(self) -> None:
        """Idempotent."""
        self._file.close()


def open_gguf(path: Path) -> list[GgufFile]:
    """The file, or all parts of the split model (`name-00001-of-00003.gguf`) of which it is one; the first part first.

    Raises CheckpointError, naming parts that are missing or belong to something else.
    """
    files = [GgufFile(path)]
    try:
        count = _whole(files[0], "split.count", 1)
        if count > 1:
            _open_parts(files, count)
    except BaseException:
        for file in files:
            file.close()
        raise
    return files


def _open_parts(files: list[GgufFile], count: int) -> None:
    """Replace the one file by all of its set."""
    (given,) = files
    match = _SPLIT_NAME.fullmatch(given.path.name)
    if match is None or int(match[3]) != count or count > MAX_SHARDS:
        raise CheckpointError(
            f"{given.path}: one of {count} parts, so it should be called like `name-00001-of-{count:05}.gguf`; "
            "give it back the name that it was published under"
        )
    paths = [given.path.with_name(f"{match[1]}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise CheckpointError(
            f"{given.path.parent}: of a model in {count} parts, these are missing: {named(missing)}; download the rest"
        )
    files += (GgufFile(path) for path in paths if path != given.path)
    files.sort(key=lambda file: file.path.name)
    for i, file in enumerate(files):
        if _whole(file, "split.no", -1) != i or _whole(file, "split.count", -1) != count:
            raise CheckpointError(f"{file.path}: says that it is not part {i + 1} of {count}; {DOWNLOAD_AGAIN}")
    promised, there = _whole(files[0], "split.tensors.count", -1), sum(len(file.tensors) for file in files)
    if promised != there:
        raise CheckpointError(f"{files[0].path}: promises {promised} tensors, its {count} parts have {there}")


def _whole(file: GgufFile, key: str, default: int) -> int:
    value = file.metadata.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"{file.path}: {key} is {value!r:.80}, not a whole number; {DOWNLOAD_AGAIN}")
    return value


def _check_layout(header: Header, file: RegularFile) -> dict[str, TensorInfo]:
    """Every tensor must lie in the file, aligned, on bytes of its own."""
    tensors: dict[str, TensorInfo] = {}
    for name, entry in header.entries.items():
        kind = TYPES.get(entry.ggml_type)
        if kind is None:
            raise CheckpointError(
                f"{file.path}: tensor {shown(name)} has type {entry.ggml_type}, which qwick does not know; "
                "take a file in another format"
            )
        last = entry.shape[-1] if entry.shape else 1
        if last % kind.block_len:
            raise CheckpointError(
                f"{file.path}: rows of {last} in tensor {shown(name)} are no whole {kind.name} blocks; {DOWNLOAD_AGAIN}"
            )
        num_bytes = math.prod(entry.shape) // kind.block_len * kind.block_bytes
        if entry.offset % header.alignment:
            raise CheckpointError(
                f"{file.path}: tensor {shown(name)} begins at {entry.offset}, not aligned to {header.alignment}"
            )
        tensors[name] = TensorInfo(kind.name, entry.shape, num_bytes)
    _check_places(header, tensors, file)
    return tensors


def _check_places(header: Header, tensors: Mapping[str, TensorInfo], file: RegularFile) -> None:
    end, before = 0, ""
    for name in sorted(tensors, key=lambda name: (header.entries[name].offset, tensors[name].num_bytes)):
        begin = header.entries[name].offset
        if begin < end:
            raise CheckpointError(f"{file.path}: tensors {shown(before)} and {shown(name)} overlap; {DOWNLOAD_AGAIN}")
        end, before = begin + tensors[name].num_bytes, name
    if header.data_start + end > file.num_bytes and tensors:
        raise CheckpointError(
            f"{file.path}: truncated: its tensors need {header.data_start + end} bytes and {file.num_bytes} are there; "
            f"{DOWNLOAD_AGAIN}"
        )
