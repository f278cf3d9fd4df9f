"""One safetensors file, read with suspicion.

Layout (github.com/huggingface/safetensors, README "Format"): the header's length as a little-endian u64, the header
(JSON: name -> dtype, shape, data_offsets), then the data, which the tensors fill without holes.

The header is scanned entry by entry with anchored, possessive patterns instead of a JSON parser: nothing nests, time
is linear, and no hostile header makes more objects than it has accepted tensors. What the official reader refuses is
refused here too, except an unknown dtype, which matters only when its tensor is read. Stricter than it: a name given
twice, unknown or escaped field names, entries as arrays, ranks above 8, more than 20,000 tensors, names above 4 KB,
empty tensors with impossible other dimensions.
"""

import codecs
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwick.errors import CapacityError, CheckpointError
from qwick.weights.files import DOWNLOAD_AGAIN, MAX_NAME_BYTES, MAX_TENSORS, Place, RegularFile, TensorInfo, shown

MAX_HEADER_BYTES = 100_000_000  # the official reader's limit
MAX_RANK = 8
MAX_MARKS = 10_000_000  # quotes and backslashes, where the scan spends its time: 20,000 tensors have 160,000 quotes

# Of the tensors that are never read only the size is checked, so these are all dtypes of the official reader.
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
STORED_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}

_WS = rb"[ \t\r\n]*+"
_ESCAPE = (
    rb'\\(?:["\\/bfnrt]|u(?:(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    rb"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
)
_STRING = rb'"(?:[^"\\\x00-\x1f]++|' + _ESCAPE + rb')*+"'
_NATURAL = rb"(?:0|[1-9][0-9]{0,19})"
_COLON = _WS + rb":" + _WS
_COMMA = _WS + rb"," + _WS
_PAIR = _STRING + _COLON + _STRING

_OPEN = re.compile(_WS + rb"\{" + _WS)
_NAME = re.compile(rb"(" + _STRING + rb")" + _COLON)
_METADATA = re.compile(rb"null|\{" + _WS + rb"(?:" + _PAIR + rb"(?:" + _COMMA + _PAIR + rb")*+)?+" + _WS + rb"\}")
_ENTRY = re.compile(rb"\{" + _WS)
_FIELD = re.compile(
    rb'(?:"dtype"' + _COLON + rb'"(?P<dtype>[A-Za-z0-9_]{1,32})"'
    rb'|"shape"' + _COLON + rb"\[" + _WS
    + rb"(?P<shape>(?:" + _NATURAL + rb"(?:" + _COMMA + _NATURAL + rb"){0,%d})?)" % (MAX_RANK - 1) + _WS + rb"\]"
    rb'|"data_offsets"' + _COLON + rb"\[" + _WS
    + rb"(?P<begin>" + _NATURAL + rb")" + _COMMA + rb"(?P<end>" + _NATURAL + rb")" + _WS + rb"\])"
)  # fmt: skip
_SEPARATOR = re.compile(_WS + rb"([,}])" + _WS)
_END = re.compile(_WS + rb"\Z")


class SafetensorsFile:
    """Random access to the tensors of one file. Raises CheckpointError for whatever is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = RegularFile(path)
        try:
            header = _read_header(self._file)
            self._data_start = 8 + len(header)
            spans = _parse_header(header, path)
            _check_layout(spans, self._file.num_bytes - self._data_start, path)
        except BaseException:
            self._file.close()
            raise
        self._begins = {name: begin for name, (_, begin) in spans.items()}
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType({name: info for name, (info, _) in spans.items()})

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of the first dimension -> [stop - start, ...]; a tensor of rank 0 counts as one row.

        The array is fresh and belongs to the caller: float32, float16, or uint16 holding bf16 bits.
        """
        info = self.tensors[name]
        dtype = STORED_DTYPES.get(info.dtype)
        if dtype is None:
            raise CheckpointError(
                f"{self.path}: tensor {shown(name)} is stored as {info.dtype}; qwick reads {', '.join(STORED_DTYPES)}"
            )
        rows, *row_shape = info.shape or (1,)
        if not 0 <= start <= stop <= rows:
            raise ValueError(f"rows [{start}, {stop}) of {name!r}, which has {rows}")
        row_bytes = math.prod(row_shape) * dtype.itemsize
        try:
            values = np.empty((stop - start, *row_shape), dtype)
        except MemoryError:
            raise CapacityError(
                f"{self.path}: no memory for {stop - start} rows ({(stop - start) * row_bytes} bytes) of {shown(name)}"
            ) from None
        if values.size:
            target = values.reshape(-1).view(np.uint8).data
            self._file.read_into(target, self._data_start + self._begins[name] + start * row_bytes)
        return values

    def place(self, name: str) -> Place:
        """Where a tensor lies."""
        return Place(self.path, self._file.fd, self._data_start + self._begins[name])

    def close(self) -> None:
        """Idempotent."""
        self._file.close()


def _read_header(file: RegularFile) -> bytes:
    if file.num_bytes < 8:
        raise CheckpointError(
            f"{file.path}: {file.num_bytes} bytes is too short for a safetensors file; {DOWNLOAD_AGAIN}"
        )
    start = file.read(0, 8)
    if start == b"version ":
        raise CheckpointError(f"{file.path}: a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{file.path}: not a safetensors file (a header of {length} bytes is beyond the format)")
    if 8 + length > file.num_bytes:
        raise CheckpointError(
            f"{file.path}: ends inside its header ({file.num_bytes} of {8 + length} bytes); {DOWNLOAD_AGAIN}"
        )
    header = file.read(8, length)
    if header.count(b'"') + header.count(b"\\") > MAX_MARKS:
        raise CheckpointError(
            f"{file.path}: the header has more than {MAX_MARKS} strings and escapes; no model needs so many"
        )
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for offset in range(0, length, 1 << 20):
            decoder.decode(header[offset : offset + (1 << 20)])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise CheckpointError(f"{file.path}: the header is not UTF-8; {DOWNLOAD_AGAIN}") from None
    return header


class _Scanner:
    """A position in the header that moves over patterns."""

    def __init__(self, header: bytes, path: Path) -> None:
        self.header = header
        self.path = path
        self.position = 0

    def take(self, pattern: re.Pattern[bytes], what: str) -> re.Match[bytes]:
        match = pattern.match(self.header, self.position)
        if match is None:
            raise CheckpointError(f"{self.path}: header byte {self.position}: expected {what}; {DOWNLOAD_AGAIN}")
        self.position = match.end()
        return match

    def members(self, what: str) -> Iterator[None]:
        """Between the braces of an object that was just opened: once per member, commas eaten."""
        if self.header[self.position : self.position + 1] == b"}":
            self.position += 1
            return
        while True:
            yield
            if self.take(_SEPARATOR, f"',' or '}}' after {what}")[1] == b"}":
                return


def _parse_header(header: bytes, path: Path) -> dict[str, tuple[TensorInfo, int]]:
    """Name -> (info, first byte in the data)."""
    scanner = _Scanner(header, path)
    spans: dict[str, tuple[TensorInfo, int]] = {}
    metadata_seen = False
    scanner.take(_OPEN, "'{'")
    for _ in scanner.members("a tensor"):
        match = scanner.take(_NAME, "a tensor's name")
        if match.end() - match.start() > MAX_NAME_BYTES:
            raise CheckpointError(f"{path}: a tensor's name of {match.end() - match.start()} bytes; {DOWNLOAD_AGAIN}")
        name: str = json.loads(match[1])
        if name == "__metadata__" and not metadata_seen:
            scanner.take(_METADATA, "an object of strings for __metadata__")
            metadata_seen = True
            continue
        if name in spans or name == "__metadata__":
            raise CheckpointError(f"{path}: the header names {shown(name)} twice")
        if len(spans) == MAX_TENSORS:
            raise CheckpointError(f"{path}: more than {MAX_TENSORS} tensors; no such model is known")
        spans[name] = _parse_entry(scanner, name)
    scanner.take(_END, "the end of the header")
    return spans


def _parse_entry(scanner: _Scanner, name: str) -> tuple[TensorInfo, int]:
    label = shown(name)
    scanner.take(_ENTRY, f"'{{' for tensor {label}")
    fields: dict[str, bytes] = {}
    for _ in scanner.members(f"a field of tensor {label}"):
        match = scanner.take(_FIELD, f"dtype, shape (at most {MAX_RANK} numbers) or data_offsets of tensor {label}")
        for key, value in match.groupdict().items():
            if value is not None:
                if key in fields:
                    raise CheckpointError(f"{scanner.path}: tensor {label} has {key} twice")
                fields[key] = value
    if len(fields) != 4:
        raise CheckpointError(f"{scanner.path}: tensor {label} lacks dtype, shape or data_offsets")
    shape = tuple(int(dim) for dim in fields["shape"].split(b",")) if fields["shape"] else ()
    begin, end = int(fields["begin"]), int(fields["end"])
    if end < begin:
        raise CheckpointError(f"{scanner.path}: tensor {label} ends at byte {end}, before it begins at {begin}")
    info = TensorInfo(fields["dtype"].decode(), shape, end - begin)
    _check_size(info, label, scanner.path)
    return info, begin


def _check_size(info: TensorInfo, label: str, path: Path) -> None:
    """The bytes must be those of the shape, and numpy must be able to count it even where a dimension is 0."""
    if math.prod(dim for dim in info.shape if dim) >= 1 << 60:
        raise CheckpointError(f"{path}: tensor {label} has an impossible shape {list(info.shape)}")
    count = math.prod(info.shape)
    bits = BITS.get(info.dtype)
    if bits is not None and count * bits != info.num_bytes * 8:
        raise CheckpointError(
            f"{path}: tensor {label} ({info.dtype}, {list(info.shape)}) needs {count * bits / 8:.0f} bytes, "
            f"but its offsets hold {info.num_bytes}"
        )


def _check_layout(spans: Mapping[str, tuple[TensorInfo, int]], data_bytes: int, path: Path) -> None:
    """The tensors must fill the data exactly: no hole, no overlap, nothing left over."""
    end = 0
    for name, (info, begin) in sorted(spans.items(), key=lambda item: (item[1][1], item[1][0].num_bytes)):
        if begin != end:
            raise CheckpointError(
                f"{path}: tensor {shown(name)} begins at data byte {begin}, but the one before it ends at {end}"
            )
        end += info.num_bytes
    if end > data_bytes:
        raise CheckpointError(
            f"{path}: truncated: its tensors need {end} bytes and {data_bytes} are there; {DOWNLOAD_AGAIN}"
        )
    if end < data_bytes:
        raise CheckpointError(f"{path}: {data_bytes - end} bytes follow the last tensor, which the format forbids")
