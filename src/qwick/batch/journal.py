"""A batch's output and how far it has come, so that nothing is lost or done twice, whenever the process ends.

Beside OUT lies OUT.progress: how many lines of which input are done, how many bytes of OUT they are. It is written
whole, after those bytes are on the disk. What OUT has beyond them is the rest of a window that nobody vouches for; it
is cut off, and answered anew. When all is done the file goes.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from qwick.batch.source import Source, extend
from qwick.errors import UsageError

VERSION = 1
_LIMIT_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Progress:
    """lines: of the output that are done. bytes: they are. input_sha256: of the input up to the last of them.

    asked  what else decides the answers: model and options
    """

    lines: int
    bytes: int
    input_sha256: str
    asked: Mapping[str, Any]


class Journal:
    """The output, open for its next line. A context manager. `lines_done` of an earlier start stay.

    Raises UsageError when the output is somebody else's, or the input or the options are not those it was begun with.
    """

    def __init__(self, path: Path, source: Source, asked: Mapping[str, Any]) -> None:
        self._path, self._progress_path = path, path.with_name(path.name + ".progress")
        self._source = source
        self._asked: dict[str, Any] = json.loads(json.dumps(asked))  # as it will be read again
        self._output = _open_locked(path)
        try:
            self.lines_done = self._resume()
        except BaseException:
            self._output.close()
            raise
        self._digest = source.digest(self.lines_done)

    def append(self, answers: Iterable[tuple[bytes, bytes]]) -> None:
        """Lines of the output, each with the line of the input that it answers, in order; on the disk on return."""
        for raw, answer in answers:
            self._output.write(answer)
            extend(self._digest, raw)
            self.lines_done += 1
        self._output.flush()
        os.fsync(self._output.fileno())
        self._save(Progress(self.lines_done, self._output.tell(), self._digest.hexdigest(), self._asked))

    def finish(self) -> None:
        """All lines are answered."""
        self._progress_path.unlink(missing_ok=True)
        _sync_folder(self._path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._output.close()

    def _resume(self) -> int:
        """Bring the output to what is certain; how many lines that is."""
        progress = self._read()
        size = os.fstat(self._output.fileno()).st_size
        if progress is None:
            if size:
                raise UsageError(f"{self._path} exists and is no unfinished batch; remove it, or name another file")
            self._save(Progress(0, 0, hashlib.sha256().hexdigest(), self._asked))
            return 0
        self._check(progress)
        lines, end = progress.lines, progress.bytes
        if size < end:  # somebody cut it, or a disk lost it: the whole lines that are left are as good
            lines, end = _whole_lines(self._output)
        self._output.truncate(end)
        self._output.seek(end)
        return lines

    def _check(self, progress: Progress) -> None:
        if progress.asked != self._asked:
            names = sorted(self._asked.keys() | progress.asked.keys())
            name = next(n for n in names if self._asked.get(n) != progress.asked.get(n))
            was, now = progress.asked.get(name), self._asked.get(name)
            raise UsageError(
                f"{self._path} was begun with {name} = {was!r:.80}, now it is {now!r:.80}; "
                f"go on as it was begun, or remove it and {self._progress_path.name}"
            )
        if self._source.digest(progress.lines).hexdigest() != progress.input_sha256:
            raise UsageError(
                f"{self._source.path} is not what {self._path} was begun with: its first {progress.lines:,} lines "
                f"have changed; bring them back, or remove {self._path.name} and {self._progress_path.name}"
            )

    def _read(self) -> Progress | None:
        """None when there is no such file."""
        try:
            with self._progress_path.open("rb") as file:
                raw = file.read(_LIMIT_BYTES + 1)
        except FileNotFoundError:
            return None
        try:
            found: Any = json.loads(raw) if len(raw) <= _LIMIT_BYTES else None
            counts = found["lines"], found["bytes"]
            good = found.pop("version") == VERSION and all(type(n) is int and n >= 0 for n in counts)
            progress = Progress(**found)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            good, progress = False, None
        if progress is None or not good:
            raise UsageError(f"{self._progress_path} is damaged; remove it and {self._path.name}, and begin anew")
        return progress

    def _save(self, progress: Progress) -> None:
        new = self._progress_path.with_name(self._progress_path.name + ".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump({"version": VERSION} | asdict(progress), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._progress_path)
        _sync_folder(self._path.parent)


def _open_locked(path: Path) -> BinaryIO:
    """For reading and appending, made when it is not there; only one process at a time has it."""
    try:
        output = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name a file in a folder of yours") from None
    try:
        fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        output.close()
        raise UsageError(f"another process writes {path}; wait for it, or name another file") from None
    return output


def _whole_lines(file: BinaryIO) -> tuple[int, int]:
    """How many lines are whole, and where the last of them ends."""
    lines = end = 0
    file.seek(0)
    for line in file:
        if line.endswith(b"\n"):
            lines, end = lines + 1, end + len(line)
    return lines, end


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
