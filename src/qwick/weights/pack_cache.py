"""The pack cache: weights as memory holds them, so that the next start need not regroup or quantise them again.

One file for each model and format in the user's cache folder:

    magic, 8 bytes · length of the header, u64 · checksum of the header, 16 bytes · header, JSON
    tensors, each from a multiple of 4096 on, as they lie in memory

The header says what the file was made of: the model's files by path, size and times, which tensors and in what order
their rows, the format, the layout of blocks in memory and qwick's version. When any of it differs the file is not read
and soon replaced. It also has a checksum of each piece of a tensor; whoever reads a piece checks it. A file is written
under another name, synced and then renamed: what has the right name is whole. Two processes do not write at once: the
second one leaves it to the first.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qwick.errors import CheckpointError, StateWarning, UsageError
from qwick.weights.files import MAX_TENSORS, MissingFileError, RegularFile

MAGIC = b"QWPACK1\n"
ENDING, UNFINISHED = ".pack", ".part"
_OURS = re.compile(r"[0-9a-f]{32}\.(pack|part)")  # all that is ever deleted
MAX_HEADER_BYTES = 64 << 20  # 9B in bf16: 1.2 MB of checksums
_ALIGNMENT = 4096
_WRITE_BYTES = 16 << 20
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

    @property
    def path(self) -> Path:
        """Where such a pack is kept: the same place for all states of the same files."""
        key = json.dumps([[name for name, *_ in self.files], self.format])
        return packs_folder() / (hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ENDING)


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


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the cache. `model`, `format`: what it was made of; None when it was not finished, or is damaged.
    `is_orphan`: the model's files are no longer there."""

    path: Path
    num_bytes: int
    model: str | None
    format: str | None
    is_orphan: bool = False


def packs_folder() -> Path:
    """QWICK_PACKS, or qwick/packed in the user's cache folder. It may not exist yet. Raises UsageError."""
    own = os.environ.get("QWICK_PACKS")
    try:
        if own:
            return Path(own).expanduser().absolute()
        cache = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:  # no home, or none of that name
        raise UsageError(f"cannot tell where packed weights are kept ({error}); set QWICK_PACKS to a folder") from None
    return base / "qwick" / "packed"


def open_pack(identity: Identity) -> Pack | None:
    """The pack of just these files; None when there is none. A damaged one is warned about (StateWarning)."""
    try:
        pack = Pack(identity.path)
    except MissingFileError:
        return None
    except CheckpointError as error:
        warn_unusable(str(error))
        return None
    if pack.identity == identity:
        return pack
    pack.close()
    return None


def warn_unusable(problem: str) -> None:
    """That the model's own files are read instead."""
    warnings.warn(f"a file of the pack cache is ignored and made anew: {problem}", StateWarning, stacklevel=3)


def write_pack(
    identity: Identity, tensors: Mapping[str, Content], progress: Callable[[int], None] | None = None
) -> bool:
    """Whether it was written: not when another process is about it, nor (StateWarning) when the disk is full or so.

    `progress` is called with the bytes of tensors written since the last call.
    """
    path = identity.path
    header, places = _header(identity, tensors)
    parts = ((place.offset, tensors[name].data) for name, place in places.items())
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _write(path, _end(places, len(header)), header, parts, progress)
    except OSError as error:
        warnings.warn(
            f"cannot write to the pack cache ({path.parent}: {error.strerror}); the next start is as slow as this one. "
            "Make room, or set QWICK_PACKS to another folder",
            StateWarning,
            stacklevel=2,
        )
        return False


def packs() -> list[Entry]:
    """What the cache holds, what was never finished too. Raises UsageError."""
    return [_entry(path) for path in _paths()]


def clear() -> list[tuple[Path, int]]:
    """Delete all of it but what is being written; (path, bytes) of what there was. Raises UsageError."""
    sized = [(path, _size(path)) for path in _paths()]  # what they hold does not matter
    return [(path, size) for path, size in sized if _delete(path)]


def forget(paths: Iterable[Path]) -> None:
    """Delete the packs of models in these folders and files. Raises UsageError."""
    for path in _paths():
        with suppress(CheckpointError):
            with Pack(path) as pack:
                files = [Path(name) for name, *_ in pack.identity.files]
            if any(file.is_relative_to(folder) for file in files for folder in paths):
                _delete(path)


def _paths() -> list[Path]:
    folder = packs_folder()
    try:
        return sorted(path for path in folder.iterdir() if _OURS.fullmatch(path.name) and not path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot read {folder} ({error.strerror}); set QWICK_PACKS to a folder") from None


def _entry(path: Path) -> Entry:
    if path.suffix == ENDING:
        with suppress(CheckpointError), Pack(path) as pack:
            files = [name for name, *_ in pack.identity.files]
            return Entry(path, pack.num_bytes, files[0], pack.identity.format, not all(map(os.path.exists, files)))
    return Entry(path, _size(path), None, None)


def _size(path: Path) -> int:
    """0 when it is gone."""
    with suppress(OSError):
        return path.lstat().st_size
    return 0


def _delete(path: Path) -> bool:
    """Whether it is gone: not where another process is writing it. Raises UsageError."""
    fd = -1
    try:
        if path.suffix == UNFINISHED:
            with suppress(OSError):  # what cannot be opened is not being written
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        if fd >= 0:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UsageError(f"cannot delete {path}: {error.strerror}; see its permissions") from None
    finally:
        if fd >= 0:
            os.close(fd)
    return True


def _write(
    path: Path,
    num_bytes: int,
    header: bytes,
    parts: Iterable[tuple[int, memoryview]],
    progress: Callable[[int], None] | None,
) -> bool:
    unfinished = path.with_suffix(UNFINISHED)
    fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Who held the lock may have renamed the file meanwhile: then it is whole, and not ours to write.
        if not _is_at(fd, unfinished):
            return False
        try:
            os.ftruncate(fd, 0)  # what a process left that was killed takes room no longer
            _check_room(path.parent, num_bytes)
            _write_at(fd, memoryview(header), 0, None)
            for offset, data in parts:
                _write_at(fd, data, offset, progress)
            os.fsync(fd)
            # Deleted by hand: what has the name now is another process's, and not whole.
            if not _is_at(fd, unfinished):
                return False
            unfinished.replace(path)
        except BaseException:
            with suppress(OSError):
                if _is_at(fd, unfinished):
                    unfinished.unlink()
            raise
    finally:
        os.close(fd)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _is_at(fd: int, path: Path) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _check_room(folder: Path, num_bytes: int) -> None:
    """Raise the error before the disk is full."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise OSError(errno.ENOSPC, f"{num_bytes >> 20} MiB are needed, {free >> 20} are free")


def _write_at(fd: int, data: memoryview, offset: int, progress: Callable[[int], None] | None) -> None:
    while data:
        count = os.pwrite(fd, data[:_WRITE_BYTES], offset)
        data, offset = data[count:], offset + count
        if progress:
            progress(count)


def _header(identity: Identity, tensors: Mapping[str, Content]) -> tuple[bytes, dict[str, Place]]:
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


def _end(places: Mapping[str, Place], header_bytes: int) -> int:
    return max((place.offset + place.num_bytes for place in places.values()), default=header_bytes)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
