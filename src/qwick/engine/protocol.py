"""What is said between an engine in its own process and whoever asks it: messages, and how they cross a socket.

A frame is four bytes of length, little end first, and a pickle. Both ends are ours and the socket has no name, so no
stranger writes to it; still `decode` makes plain values and our own dataclasses and enums only, so that a child whose
memory was damaged can make the parent raise, and nothing else.
"""

import io
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from importlib import import_module
from operator import attrgetter
from typing import Any, Self, cast

import numpy as np

from qwick import errors
from qwick.engine.config import EngineConfig
from qwick.engine.request import Event, Request, Stats
from qwick.errors import EngineError, QwickError, QwickWarning

MAX_FRAME_BYTES = 256 << 20
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Open:
    """The first message to a child: what its opener needs to know (plain values or dataclasses of ours)."""

    options: Any


@dataclass(frozen=True, slots=True)
class Submit:
    """A request, and the number by which both sides will speak of it."""

    request_id: int
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    """Whoever asked wants no more of it."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Remember:
    """A prompt to be read when nothing else is to do (Engine.remember)."""

    request: Request


@dataclass(frozen=True, slots=True)
class Loading:
    """Bytes of weights read so far, and in all."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is open. `facts`: of the machine and memory, plain values to be shown."""

    config: EngineConfig
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that crosses: the name of its type in qwick.errors, its text, and for a log where it was raised."""

    kind: str
    text: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException, where: str, traceback: str = "") -> "Failure":
        """Errors of ours as they are; any other is the engine's own fault, `where` it happened."""
        if isinstance(error, QwickError) and getattr(errors, type(error).__name__, None) is type(error):
            return cls(type(error).__name__, str(error), traceback)
        if isinstance(error, MemoryError):
            return cls("CapacityError", f"not enough memory {where}; ask for less at once", traceback)
        what = f"{type(error).__name__}: {error}"
        return cls("EngineError", f"the engine failed {where} ({what:.300}); please report it", traceback)

    @property
    def error(self) -> QwickError:
        """To be raised on the other side."""
        found = getattr(errors, self.kind, None)
        if isinstance(found, type) and issubclass(found, QwickError):
            return found(self.text)
        return EngineError(self.text)


@dataclass(frozen=True, slots=True)
class NotOpened:
    """The engine could not be opened; the child ends."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Warned:
    """A QwickWarning: the name of its type, its text."""

    kind: str
    text: str

    @property
    def warning(self) -> QwickWarning:
        """To be given on the other side."""
        found = getattr(errors, self.kind, None)
        if isinstance(found, type) and issubclass(found, QwickWarning):
            return found(self.text)
        return QwickWarning(self.text)


@dataclass(frozen=True, slots=True)
class Failed:
    """These requests are over: refused, or ended by a step that failed."""

    request_ids: tuple[int, ...]
    failure: Failure


@dataclass(frozen=True)  # without slots, and its events as rows: five times as fast to cross, in every step
class Stepped:
    """What a step told; `began`: requests that are no longer only waiting. Empty: the child is alive.

    rows  of each event the request's number, the fields of its Stats, and its other fields
    """

    rows: tuple[tuple[int, tuple[Any, ...], tuple[Any, ...]], ...] = ()
    began: tuple[int, ...] = ()

    @classmethod
    def of(cls, events: Iterable[tuple[int, Event]], began: tuple[int, ...] = ()) -> Self:
        """`events` by request."""
        rows = tuple((request_id, _stats(event.stats), _event(event)) for request_id, event in events)
        return cls(rows, began)

    @property
    def events(self) -> Iterator[tuple[int, Event]]:
        """As they were given to `of`."""
        for request_id, stats, (sequence_id, token_id, *others) in self.rows:
            yield request_id, Event(sequence_id, token_id, Stats(*stats), *others)


def _getter(kind: type[Any], but: str = "") -> Callable[[Any], tuple[Any, ...]]:
    return attrgetter(*(field.name for field in fields(kind) if field.init and field.name != but))


_stats, _event = _getter(Stats), _getter(Event, but="stats")


@dataclass(frozen=True, slots=True)
class Counted:
    """What the engine has counted and how things stand (engine/instruments.py), as plain values, now and then."""

    instruments: Mapping[str, Any]
    levels: Mapping[str, Any]

    @classmethod
    def of(cls, instruments: object, levels: object) -> Self:
        """From the dataclasses."""
        return cls(_plain(instruments), _plain(levels))


def _plain(value: Any) -> Any:
    """Dataclasses and mappings as dicts by text, sequences as lists."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("list[Any]", value)]
    return value


class ProtocolError(Exception):
    """What came is no message: the other side is broken."""


def encode(message: object) -> bytes:
    """A whole frame."""
    buffer = io.BytesIO()
    buffer.write(bytes(_LENGTH.size))
    _Encoder(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    frame = buffer.getbuffer()
    _LENGTH.pack_into(frame, 0, len(frame) - _LENGTH.size)
    return bytes(frame)


class Frames:
    """Bytes in, as they come; messages out."""

    def __init__(self) -> None:
        self._held = bytearray()

    def push(self, data: bytes | memoryview) -> Iterator[object]:
        """The messages that `data` completes. Raises ProtocolError."""
        self._held += data
        at = 0
        try:
            while len(self._held) - at >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._held, at)
                if length > MAX_FRAME_BYTES:
                    raise ProtocolError(f"a frame of {length:,} bytes")
                end = at + _LENGTH.size + length
                if len(self._held) < end:
                    break
                payload = bytes(self._held[at + _LENGTH.size : end])
                at = end
                yield decode(payload)
        finally:
            del self._held[:at]


def decode(payload: bytes) -> object:
    """One message. Raises ProtocolError for whatever `encode` does not write."""
    try:
        return _Decoder(io.BytesIO(payload)).load()
    except ProtocolError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged pickles raise anything
        raise ProtocolError(f"{type(error).__name__}: {error}") from None


class _Encoder(pickle.Pickler):
    """Numbers of numpy, which callers may have put into a request, cross as Python's."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.integer | np.floating):
            plain: int | float = cast("Any", value).item()
            return type(plain), (plain,)
        return NotImplemented


class _Decoder(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _KNOWN.get((module, name))
        if found is None:
            found = _KNOWN[module, name] = _message_class(module, name)
        return found


_KNOWN: dict[tuple[str, str], type[Any]] = {
    ("builtins", kind.__name__): kind for kind in (frozenset, set, int, float, bool)
}


def _message_class(module: str, name: str) -> type[Any]:
    """One of our dataclasses or enums. Raises ProtocolError for all else."""
    found: object = getattr(import_module(module), name, None) if module.startswith("qwick.") else None
    if isinstance(found, type) and (is_dataclass(found) or issubclass(found, Enum)):
        return found
    raise ProtocolError(f"{module}.{name} is none of our messages")
