"""Writing a GGUF file (version 3, little endian): metadata and list of tensors first, then the data, piece by piece.

The file grows under another name beside its own and is renamed when it is whole, so a crash, a full disk or Ctrl-C
leaves nothing half-written under the name that was asked for. Layout: github.com/ggml-org/ggml, docs/gguf.md.
"""

import errno
import os
import shutil
import struct
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qwick.errors import CapacityError, UsageError
from qwick.formats import Format

ALIGNMENT = 32
_VERSION = 3
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": _BOOL, "u8": 10, "i8": 11, "f8": 12}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Value: TypeAlias = "bool | int | float | str | np.generic | Sequence[str] | NDArray[Any]"
"""Whole numbers are written as u32 if they fit (else i32, u64 or i64), floats as f32; numpy values as what they are."""

Pieces: TypeAlias = Callable[[], Iterable[NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to write: `shape` outermost dimension first, `pieces` its bytes in order, as arrays of any type."""

    name: str
    shape: tuple[int, ...]
    format: Format
    pieces: Pieces

    @property
    def num_bytes(self) -> int:
        *outer, cols = self.shape
        return self.format.num_bytes(int(np.prod(outer, dtype=np.int64)), cols)


def write_gguf(
    path: Path, metadata: Mapping[str, Value], tensors: Sequence[NewTensor], *, overwrite: bool = False
) -> int:
    """Write the file -> its size in bytes. Every tensor's pieces are asked for once, in order, when they are due.

    Raises UsageError when `path` is there already (without `overwrite`) or cannot be written, CapacityError when the
    disk is full or too small, ValueError for pieces that do not add up to their tensor.
    """
    header = _header(metadata, tensors)
    total = _aligned(len(header)) + sum(_aligned(t.num_bytes) for t in tensors)
    with _new_file(path, total, overwrite=overwrite) as file:
        file.write(header)
        file.write(bytes(-len(header) % ALIGNMENT))
        for tensor in tensors:
            _write_tensor(file, tensor)
    return total


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Raise what `write_gguf` would, before the work is done. UsageError."""
    try:
        path.lstat()
        exists = True
    except (FileNotFoundError, NotADirectoryError):
        exists = False
    except (OSError, ValueError) as error:  # unreadable, too long, a NUL inside
        raise UsageError(f"{path}: not a usable name: {error}") from None
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file")
    if exists and not overwrite:
        raise UsageError(f"{path} exists; give another name, or --force to replace it")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}; make it first")


@contextmanager
def _new_file(path: Path, num_bytes: int, *, overwrite: bool) -> Generator[BinaryIO]:
    check_writable(path, overwrite=overwrite)
    free = shutil.disk_usage(path.parent).free
    if free < num_bytes:
        raise CapacityError(
            f"{path} needs {num_bytes:,} bytes and {free:,} are free there; make room, or choose another folder"
        )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with unfinished.open("xb", buffering=1 << 20) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _publish(unfinished, path, overwrite=overwrite)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        _explain(error, path)


def _publish(unfinished: Path, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(unfinished, path)  # unlike a rename it never replaces what came there in the meantime
        except FileExistsError:
            raise UsageError(f"{path} appeared while it was being written; give another name, or --force") from None
        except OSError:  # a file system without hard links
            check_writable(path, overwrite=False)
        else:
            return
    unfinished.replace(path)


def _explain(error: OSError, path: Path) -> NoReturn:
    if error.errno in _FULL:
        raise CapacityError(f"{path}: the disk is full, nothing was written; make room, or choose another folder")
    raise UsageError(f"{path}: cannot be written: {error.strerror or error}; choose another folder") from None


def _write_tensor(file: BinaryIO, tensor: NewTensor) -> None:
    written = 0
    for piece in tensor.pieces():
        data = np.ascontiguousarray(piece)
        written += data.nbytes
        if written > tensor.num_bytes:
            break
        file.write(data.data)
    if written != tensor.num_bytes:
        raise ValueError(f"{tensor.name} was given {written} of its {tensor.num_bytes} bytes")
    file.write(bytes(-written % ALIGNMENT))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _header(metadata: Mapping[str, Value], tensors: Sequence[NewTensor]) -> bytes:
    parts = [b"GGUF", struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += (_text(key), _typed(key, value))
    offset = 0
    for tensor in tensors:
        dims = tensor.shape[::-1]  # innermost first
        parts += (_text(tensor.name), struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
        parts.append(struct.pack("<IQ", tensor.format.ggml_type, offset))
        offset += _aligned(tensor.num_bytes)
    return b"".join(parts)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(key: str, value: Value) -> bytes:
    """Type number and value."""
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, bool | int | float):
        return _number(key, _fitting(value))
    if isinstance(value, np.generic):
        return _number(key, value)
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        return struct.pack("<IIQ", _ARRAY, _type_number(key, array.dtype), array.size) + data
    strings = [_text(text) for text in value]
    return struct.pack("<IIQ", _ARRAY, _STRING, len(strings)) + b"".join(strings)


def _fitting(value: float) -> np.generic:
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, float):
        return np.float32(value)
    kinds = (np.uint32, np.int32, np.uint64, np.int64)
    kind = next((k for k in kinds if np.iinfo(k).min <= value <= np.iinfo(k).max), np.int64)
    return kind(value)


def _number(key: str, value: np.generic) -> bytes:
    little = np.asarray(value).astype(value.dtype.newbyteorder("<"))
    return struct.pack("<I", _type_number(key, value.dtype)) + little.tobytes()


def _type_number(key: str, dtype: np.dtype[Any]) -> int:
    number = _NUMBERS.get(f"{dtype.kind}{dtype.itemsize}")
    if number is None:
        raise ValueError(f"{key}: GGUF has no type for {dtype}")
    return number
