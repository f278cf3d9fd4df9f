"""The pack cache: weights as memory holds them, so that the next start need not regroup or quantise them again.

One file (`pack_file.py`) for each model and format in the user's cache folder. When it was made of anything else than
the model as it is now, it is not read and soon replaced. A file is written under another name, synced and then
renamed: what has the right name is whole. Two processes do not write at once: the second one leaves it to the first.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qwick.errors import CheckpointError, StateWarning, UsageError
from qwick.weights.files import MissingFileError
from qwick.weights.pack_file import Content, Identity, Pack, end_of, header_of

ENDING, UNFINISHED = ".pack", ".part"
_OURS = re.compile(r"[0-9a-f]{32}\.(pack|part)")  # all that is ever deleted
_WRITE_BYTES = 16 << 20


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


def pack_path(identity: Identity) -> Path:
    """Where such a pack is kept: the same place for all states of the same files. Raises UsageError."""
    key = json.dumps([[name for name, *_ in identity.files], identity.format])
    return packs_folder() / (hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ENDING)


def open_pack(identity: Identity) -> Pack | None:
    """The pack of just these files; None when there is none. A damaged one is warned about (StateWarning)."""
    try:
        pack = Pack(pack_path(identity))
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
    path = pack_path(identity)
    header, places = header_of(identity, tensors)
    parts = ((place.offset, tensors[name].data) for name, place in places.items())
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _write(path, end_of(places, len(header)), header, parts, progress)
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
