"""How many threads a model runs with here: what was asked for, else what was found fastest before, else the usual.

What was found is kept in the user's state folder, a small file for each model and machine; `qwick doctor` shows them.
A model is known by the names, types and shapes of its tensors and its format in memory: what decides its speed, where
ever its files lie. A machine by processor, instruction set, and the cores and hardware threads this process may use.
"""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from qwick.engine.thread_trial import ThreadTrial, thread_candidates
from qwick.errors import StateWarning
from qwick.formats import Format
from qwick.model.source import Source
from qwick.ops.native import NativeBackend, default_threads, describe_machine, most_threads

VERSION = 1  # of the files
_LIMIT_BYTES, _MOST_NAME = 8192, 200


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides which number is best, beside the model."""

    processor: str
    isa: str
    usual_threads: int
    most_threads: int

    @classmethod
    def here(cls) -> "Machine":
        return cls(processor_name(), describe_machine().isa, default_threads()[0], most_threads())


@dataclass(frozen=True, slots=True)
class Record:
    """What was found for one model on one machine. None: not tried yet."""

    model: str  # how it was called, to be shown
    model_key: str
    machine: Machine
    threads: int | None
    threads_batch: int | None

    def save(self) -> None:
        """Whole or not at all, whoever else writes; a folder that cannot be written is no failure."""
        with suppress(OSError, RuntimeError):
            path = _path(self.model_key, self.machine)
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{os.urandom(8).hex()}.new")
            try:
                new.write_text(json.dumps({"version": VERSION} | asdict(self)))
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)


class ThreadChoice:
    """For one opening of a model. `threads`, `threads_batch`: what to use at first.

    name                what the caller calls the model
    asked, asked_batch  what the caller wants; who asks for `threads` settles both
    """

    def __init__(
        self,
        name: str,
        source: Source,
        format: Format | None,
        asked: int | None = None,
        asked_batch: int | None = None,
    ) -> None:
        self._name, self._key, self._machine = name[-_MOST_NAME:], _model_key(source, format), Machine.here()
        usual, most = self._machine.usual_threads, self._machine.most_threads
        found = _read(self._key, self._machine) if asked is None else None
        known, known_batch = (found.threads, found.threads_batch) if found else (None, None)
        tried = thread_candidates(usual, most)
        self._decode = tried if asked is None and known is None else (asked or known or usual,)
        if asked_batch is not None or asked is not None:
            self._prompt = (asked_batch or self._decode[0],)
        else:
            self._prompt = tried if known_batch is None else (known_batch,)
        self._asked_batch = asked_batch

    @property
    def threads(self) -> int:
        return self._decode[0]

    @property
    def threads_batch(self) -> int:
        return self._prompt[0]

    def trial(self, backend: NativeBackend, full_rows: int) -> ThreadTrial | None:
        """What finds out what is not known yet, from steps of up to `full_rows`; None when there is nothing to try."""
        trial = ThreadTrial(
            self._decode,
            self._prompt,
            full_rows=full_rows,
            set_threads=backend.set_threads,
            settled=self._settled,
        )
        return None if trial.is_over else trial

    def _settled(self, threads: int | None, threads_batch: int | None) -> None:
        if self._asked_batch is not None:
            threads_batch = None  # was not found, but asked for
        with suppress(OSError, RuntimeError, ValueError):  # what is not known here another process may have found
            kept = _parse(_path(self._key, self._machine))
            if (kept.model_key, kept.machine) == (self._key, self._machine):
                threads = kept.threads if threads is None else threads
                threads_batch = kept.threads_batch if threads_batch is None else threads_batch
        Record(self._name, self._key, self._machine, threads, threads_batch).save()


def records() -> list[Record]:
    """Of this machine, by name; what cannot be read is left out."""
    machine = Machine.here()
    found: list[Record] = []
    with suppress(OSError, RuntimeError):
        for path in sorted(records_folder().glob("*.json")):
            with suppress(OSError, ValueError):
                record = _parse(path)
                found += [record] if record.machine == machine else []
    return sorted(found, key=lambda record: record.model)


def records_folder() -> Path:
    """Raises RuntimeError when there is no home."""
    return state_folder() / "threads"


def state_folder() -> Path:
    """qwick's place under XDG_STATE_HOME, for what a user would not miss. Raises RuntimeError when there is no home."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The specification: a relative path there is invalid and counts as none.
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "qwick"


def processor_name() -> str:
    """As /proc/cpuinfo has it; empty where that is silent."""
    with suppress(OSError):
        for line in _cpu_lines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""


def _cpu_lines() -> Iterator[str]:
    with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
        yield from file


def _read(key: str, machine: Machine) -> Record | None:
    """Warns (StateWarning) about a file that says something else than it should."""
    try:
        path = _path(key, machine)
    except RuntimeError:  # no home
        return None
    try:
        record = _parse(path)
        if (record.model_key, record.machine) == (key, machine):
            return record
    except OSError:  # mostly: nothing is known yet
        return None
    except ValueError:
        pass
    warnings.warn(
        f"{path} is damaged and ignored; it is written anew when the best number of threads was found again",
        StateWarning,
        stacklevel=2,
    )
    return None


def _parse(path: Path) -> Record:
    """Raises ValueError for whatever `save` does not write."""
    with path.open("rb") as file:
        raw = file.read(_LIMIT_BYTES + 1)
    try:
        found: Any = json.loads(raw) if len(raw) <= _LIMIT_BYTES else None
        record = Record(
            found["model"], found["model_key"], Machine(**found["machine"]), found["threads"], found["threads_batch"]
        )
        most = max(record.machine.usual_threads, record.machine.most_threads)
        counts = [n for n in (record.threads, record.threads_batch) if n is not None]
        good = found["version"] == VERSION and all(isinstance(found[key], str) for key in ("model", "model_key"))
        good = good and all(type(n) is int and 1 <= n <= most for n in counts)
    except (TypeError, KeyError, RecursionError):
        good, record = False, None
    if record is None or not good:
        raise ValueError(path)
    return record


def _path(key: str, machine: Machine) -> Path:
    return records_folder() / f"{key}-{_digest(machine)}.json"


def _model_key(source: Source, format: Format | None) -> str:
    tensors = sorted((name, info.dtype, tuple(info.shape)) for name, info in source.checkpoint.tensors.items())
    return _digest(tensors, format.name if format else "")


def _digest(*values: object) -> str:
    return blake2b(repr(values).encode(), digest_size=8).hexdigest()
