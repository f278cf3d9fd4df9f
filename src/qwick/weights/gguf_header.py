"""The header of a GGUF file, read with suspicion: metadata and the list of tensors.

Layout (github.com/ggml-org/ggml, docs/gguf.md): magic, version, number of tensors and of keys; per key its name, type
and value; per tensor its name, dimensions (innermost first), type and offset; then, aligned, the data. Versions 2 and
3, little endian.

A vocabulary and its merges are half a million strings; they stay bytes until someone asks for them (`Strings`). Every
count is checked against the bytes that are left before anything of its size is made. Refused beyond what ggml refuses:
flags other than 0 and 1, and more than the limits below. Holes between tensors are allowed.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from qwick.errors import CheckpointError
from qwick.ops import native
from qwick.weights.files import DOWNLOAD_AGAIN, MAX_NAME_BYTES, MAX_TENSORS, RegularFile, shown

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 100_000_000  # the released models' have 11 MB
MAX_KEYS = 10_000  # a few dozen are usual
MAX_KEY_BYTES = 65_535  # the format's own limit
MAX_STRINGS = 1 << 22  # in all arrays together; the released models have half a million
MAX_DIMS = 4
MAX_ALIGNMENT = 1 << 20
READ_BYTES = 1 << 20  # at a time, at least

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS: Final = {
    number: (struct.Struct("<" + code), np.dtype("<" + code))
    for number, code in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "B",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}

Value: TypeAlias = "int | float | bool | str | Strings | NDArray[Any]"
Metadata: TypeAlias = Mapping[str, Value]
NO_METADATA: Metadata = MappingProxyType({})


class Strings(Sequence[str]):
    """An array of strings as the file has it, decoded when asked for. Raises CheckpointError where one is not UTF-8."""

    def __init__(self, where: str, data: bytes | NDArray[np.uint8], ends: NDArray[np.uint64]) -> None:
        """`data` has strings each after 8 bytes of length; `ends` where each ends."""
        self._where = where
        self._data = np.frombuffer(data, np.uint8)
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        begin = 8 + (int(self._ends[index - 1]) if index else 0)
        return self._decoded(self._data[begin : int(self._ends[index])].tobytes())

    def __iter__(self) -> Iterator[str]:
        return iter(self.decoded())

    def decoded(self) -> list[str]:
        """All of them: 10 ms for the released vocabulary."""
        try:
            return native.strings(self._data, self._ends)
        except UnicodeDecodeError as error:
            raise self._not_text(error) from None

    def pairs(self) -> list[tuple[str, str] | None]:
        """Each as what stands on either side of its only space; None where there is not just one."""
        try:
            return native.string_pairs(self._data, self._ends)
        except UnicodeDecodeError as error:
            raise self._not_text(error) from None

    @property
    def layout(self) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """The bytes, and where in them each string ends."""
        return self._data, self._ends

    def _decoded(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self._not_text(error) from None

    def _not_text(self, error: UnicodeDecodeError) -> CheckpointError:
        return CheckpointError(f"{self._where} holds {error.object[:40]!r}, which is not UTF-8; {DOWNLOAD_AGAIN}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the header says about a tensor. `shape` outermost dimension first; `offset` from the start of the data."""

    ggml_type: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """`data_start`: where in the file the data begins; `alignment`: of every tensor in it."""

    metadata: Metadata
    entries: Mapping[str, Entry]
    alignment: int
    data_start: int


def read_header(file: RegularFile) -> Header:
    """Raises CheckpointError for whatever is wrong with it; tensors' sizes are not looked at here."""
    cursor = _Cursor(file)
    num_tensors, num_keys = _read_start(cursor)
    if num_tensors > MAX_TENSORS or num_keys > MAX_KEYS:
        raise cursor.error(f"said to have {num_tensors} tensors and {num_keys} keys; no such model is known")
    metadata: dict[str, Value] = {}
    for _ in range(num_keys):
        key = cursor.text(MAX_KEY_BYTES, "a key")
        if key in metadata:
            raise cursor.error(f"the key {shown(key)} is there twice")
        metadata[key] = _read_value(cursor, key)
    entries: dict[str, Entry] = {}
    for _ in range(num_tensors):
        name = cursor.text(MAX_NAME_BYTES, "a tensor's name")
        if name in entries:
            raise cursor.error(f"the header names {shown(name)} twice")
        entries[name] = _read_entry(cursor, name)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.error(f"general.alignment is {alignment!r:.80}, not a power of two up to {MAX_ALIGNMENT}")
    data_start = -(-cursor.at // alignment) * alignment
    return Header(MappingProxyType(metadata), MappingProxyType(entries), alignment, data_start)


class _Cursor:
    """A position in the header, which is read from the file as far as it turns out to go.

    `data` has room for the longest header; of that only what is read takes memory, and what was read never moves.
    """

    def __init__(self, file: RegularFile) -> None:
        self.file = file
        self.data = np.empty(min(file.num_bytes, MAX_HEADER_BYTES), np.uint8)
        self.have = 0
        self.at = 0
        self.num_strings = 0

    def error(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.file.path}: {problem}; {DOWNLOAD_AGAIN}")

    def need(self, count: int) -> None:
        """`count` more bytes must be in the header, and are in `data` then."""
        end, have = self.at + count, self.have
        if end <= have:
            return
        if end > self.file.num_bytes:
            raise self.error(f"ends inside its header ({self.file.num_bytes} bytes, {end:.4g} are needed)")
        if end > MAX_HEADER_BYTES:
            raise self.error(f"the header is longer than {MAX_HEADER_BYTES} bytes; no model needs so many")
        self.have = min(max(end, have + READ_BYTES), len(self.data))
        self.file.read_into(self.data[have : self.have].data, have)

    def number(self, form: struct.Struct) -> Any:
        self.need(form.size)
        (value,) = form.unpack_from(self.data.data, self.at)
        self.at += form.size
        return value

    def take(self, count: int) -> bytes:
        self.need(count)
        self.at += count
        return self.data[self.at - count : self.at].tobytes()

    def text(self, limit: int, what: str) -> str:
        length = self.number(_U64)
        if length > limit:
            raise self.error(f"{what} at byte {self.at} has {length} bytes, more than {limit}")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} at byte {self.at - length} is not UTF-8") from None


def _read_start(cursor: _Cursor) -> tuple[int, int]:
    """(number of tensors, number of keys)"""
    path = cursor.file.path
    if cursor.file.num_bytes < 24:
        raise CheckpointError(f"{path}: {cursor.file.num_bytes} bytes is too short for a GGUF file; {DOWNLOAD_AGAIN}")
    magic = cursor.take(4)
    if magic == b"vers":
        raise CheckpointError(f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
    if magic != MAGIC:
        raise CheckpointError(f"{path}: not a GGUF file, although its name says so; {DOWNLOAD_AGAIN}")
    version = cursor.number(_U32)
    if version and version & 0xFFFF == 0:
        raise CheckpointError(f"{path}: a big-endian GGUF file; take the usual, little-endian one")
    if version not in (2, 3):
        raise CheckpointError(f"{path}: GGUF version {version}; qwick reads 2 and 3, so convert the model anew")
    return cursor.number(_U64), cursor.number(_U64)


def _read_value(cursor: _Cursor, key: str) -> Value:
    number = cursor.number(_U32)
    if number == _STRING:
        return cursor.text(MAX_HEADER_BYTES, f"the value of {shown(key)}")
    if number == _ARRAY:
        return _read_array(cursor, key)
    if number not in _SCALARS:
        raise cursor.error(f"the key {shown(key)} has the unknown type {number}")
    value = cursor.number(_SCALARS[number][0])
    if number != _BOOL:
        return value
    if value > 1:
        raise cursor.error(f"the key {shown(key)} is neither true nor false but {value}")
    return value == 1


def _read_array(cursor: _Cursor, key: str) -> "Strings | NDArray[Any]":
    number, count = cursor.number(_U32), cursor.number(_U64)
    if number == _STRING:
        return _read_strings(cursor, key, count)
    if number not in _SCALARS:
        what = "arrays" if number == _ARRAY else f"values of the unknown type {number}"
        raise cursor.error(f"the key {shown(key)} is an array of {what}")
    dtype = _SCALARS[number][1]
    values = np.frombuffer(cursor.take(count * dtype.itemsize), dtype)
    if number != _BOOL:
        return values
    if values.size and values.max() > 1:
        raise cursor.error(f"the key {shown(key)} holds {values.max()} where true or false is expected")
    return values == 1


def _read_strings(cursor: _Cursor, key: str, count: int) -> Strings:
    cursor.num_strings += count
    if cursor.num_strings > MAX_STRINGS:
        raise cursor.error(f"the key {shown(key)} is said to have {count} strings; no model has so many")
    cursor.need(8 * count)
    start, ends, done = cursor.at, np.empty(count, np.uint64), 0
    while True:
        done = native.scan_strings(cursor.data[start : cursor.have], ends, done)
        cursor.at = start + (int(ends[done - 1]) if done else 0)
        if done == count:
            break
        cursor.need(8)
    cursor.need(0)
    return Strings(f"{cursor.file.path}: {key}", cursor.data[start : cursor.at], ends)


def _read_entry(cursor: _Cursor, name: str) -> Entry:
    num_dims = cursor.number(_U32)
    if num_dims > MAX_DIMS:
        raise cursor.error(f"tensor {shown(name)} is said to have {num_dims} dimensions; {MAX_DIMS} is the most")
    dims = tuple(cursor.number(_U64) for _ in range(num_dims))
    if math.prod(dim for dim in dims if dim) >= 1 << 60:
        raise cursor.error(f"tensor {shown(name)} has an impossible shape {list(dims)}")
    return Entry(cursor.number(_U32), dims[::-1], cursor.number(_U64))
