"""A pack: a file of matrices as memory holds them.

    magic, 8 bytes · length of the header, u64 · checksum of the header, 16 bytes · header, JSON
    tensors, each from a multiple of 4096 on, as they lie in memory

The header says what the file was made of: the model's files by path, size and times, which tensors and in what order
their rows, the format, the layout of blocks in memory and qwick's version. It also has a checksum of each piece of a
tensor; whoever reads a piece checks it. A header is as suspicious as any file: numbers beyond the file, fields that
are missing or of another type make it none.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qwick.errors import CheckpointError
from qwick.weights.files import MAX_TENSORS, RegularFile

MAGIC = b"QWPACK1\n"
MAX_HEADER_BYTES = 64 << 20  # 9B in bf16: 1.2 MB of checksums
_ALIGNMENT = 4096
_DIGEST_BYTES = 16
_START_BYTES = len(MAGIC) + 8 + _DIGEST_BYTES


@dataclass(frozen=True, slots=True)
class Identity:
    """What a pack was made of. `files`: (path, bytes, time of change, time of the inode's change, inode); `tensors`:
    a digest of their names, shapes and orders."""

    files: tuple[tuple[str, int, int, int, int], ...]
    tensors: str
    format: str | None
    layout: int
    version: str


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor in a pack: bytes [offset, offset + num_bytes), with the checksum of each piece."""

    family: str
    shape: tuple[int, int]
    offset: int
    num_bytes: int
    sums: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """A tensor to be written; `data` is its memory."""

    family: str
    shape: tuple[int, int]
    data: memoryview
    sums: Sequence[int]


class Pack:
    """An opened pack: `tensors` by name. Its pieces are not checked yet. A context manager that closes it."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError for whatever is wrong with it."""
        self.path = path
        self._file = RegularFile(path)
        try:
            self.identity, self.tensors = _read_header(self._file)
        except BaseException:
            self._file.close()
            raise

    @property
    def fd(self) -> int:
        return self._file.fd

    @property
    def num_bytes(self) -> int:
        return self._file.num_bytes

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def header_of(identity: Identity, tensors: Mapping[str, Content]) -> tuple[bytes, dict[str, Place]]:
    """The bytes before the tensors, and where these go. Places depend on the header's length, which they are part of,
    so they count from its end."""
    places: dict[str, Place] = {}
    at = 0
    for name, content in tensors.items():
        places[name] = Place(content.family, content.shape, at, content.data.nbytes, tuple(content.sums))
        at = _aligned(at + content.data.nbytes)
    listed = {
        name: [place.family, place.shape, place.offset, place.num_bytes, _hex(place.sums)]
        for name, place in places.items()
    }
    text = json.dumps({"identity": asdict(identity), "tensors": listed}).encode()
    start = MAGIC + len(text).to_bytes(8, "little") + hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()
    data_start = _aligned(len(start) + len(text))
    moved = {name: _moved(place, data_start) for name, place in places.items()}
    return start + text, moved


def _read_header(file: RegularFile) -> tuple[Identity, dict[str, Place]]:
    """(the identity, tensors by name), their places checked against the file."""
    problem = f"{file.path}: not a whole pack"
    if file.num_bytes < _START_BYTES:
        raise CheckpointError(problem)
    start = file.read(0, _START_BYTES)
    length = int.from_bytes(start[len(MAGIC) : len(MAGIC) + 8], "little")
    if start[: len(MAGIC)] != MAGIC or length > min(MAX_HEADER_BYTES, file.num_bytes - _START_BYTES):
        raise CheckpointError(problem)
    text = file.read(_START_BYTES, length)
    if hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest() != start[-_DIGEST_BYTES:]:
        raise CheckpointError(f"{file.path}: the header's checksum is wrong")
    data_start = _aligned(_START_BYTES + length)
    try:
        header = json.loads(text)
        identity, listed = _identity(header["identity"]), header["tensors"]
        if not 0 < len(listed) <= MAX_TENSORS:
            raise ValueError
        tensors = {name: _moved(_place(entry, file.num_bytes), data_start) for name, entry in listed.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(f"{file.path}: the header makes no sense") from None
    end = data_start
    for place in tensors.values():
        if place.offset != _aligned(end) or place.num_bytes < 1:
            raise CheckpointError(f"{file.path}: the header makes no sense")
        end = place.offset + place.num_bytes
    if end != file.num_bytes:
        raise CheckpointError(f"{file.path}: has {file.num_bytes} bytes instead of {end}")
    return identity, tensors


def _identity(found: Any) -> Identity:
    """Raises ValueError, TypeError, KeyError for what we did not write."""
    files = tuple((path, size, time, inode_time, inode) for path, size, time, inode_time, inode in found["files"])
    tensors, format, layout, version = (found[key] for key in ("tensors", "format", "layout", "version"))
    texts = [tensors, version, *([] if format is None else [format]), *(path for path, *_ in files)]
    numbers = [layout, *(number for _, *numbers in files for number in numbers)]
    if not files or not all(type(text) is str for text in texts) or not all(type(n) is int for n in numbers):
        raise ValueError
    return Identity(files, tensors, format, layout, version)


def _place(entry: Any, file_bytes: int) -> Place:
    """Raises ValueError, TypeError."""
    family, (rows, cols), offset, num_bytes, sums = entry
    numbers = (rows, cols, offset, num_bytes)
    # A value of a matrix takes a bit at least.
    if not isinstance(family, str) or not all(type(n) is int and 0 <= n <= 8 * file_bytes for n in numbers):
        raise ValueError
    data = bytes.fromhex(sums)
    found = tuple(int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8))
    return Place(family, (rows, cols), offset, num_bytes, found)


def _moved(place: Place, data_start: int) -> Place:
    return Place(place.family, place.shape, data_start + place.offset, place.num_bytes, place.sums)


def _hex(sums: Iterable[int]) -> str:
    return b"".join(number.to_bytes(8, "little") for number in sums).hex()


def end_of(places: Mapping[str, Place], header_bytes: int) -> int:
    """How many bytes the file has."""
    return max((place.offset + place.num_bytes for place in places.values()), default=header_bytes)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
