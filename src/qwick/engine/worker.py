"""The child's side of an engine in its own process: messages in, steps, messages out.

`serve` is all that the child does. It ends when the parent does or wants it to: the socket is at its end then.
"""

import os
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from ctypes import CDLL
from functools import partial
from time import monotonic, sleep
from typing import Any

from qwick.engine.engine import Engine
from qwick.engine.preparing import PREPARING_SECONDS, Preparing
from qwick.engine.protocol import (
    Cancel,
    Counted,
    Failed,
    Failure,
    Frames,
    Loading,
    NotOpened,
    Open,
    ProtocolError,
    Ready,
    Remember,
    Stepped,
    Submit,
    Warned,
    encode,
)
from qwick.errors import QwickWarning

Opener = Callable[[Any, Callable[[int, int], None]], tuple[Engine, dict[str, Any]]]
"""(what `Open` says, progress) -> the engine, and facts of it to be shown."""

ALIVE_SECONDS = 1.0  # a step that tells nothing (a long prompt) is told at least so often
COUNT_SECONDS = 1.0
_LOADING_SECONDS = 0.05
_READ_BYTES = 1 << 18
_PR_SET_PDEATHSIG = 1


class Link:
    """The child's end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._frames = Frames()
        self._lock = threading.Lock()  # a warning may come from any thread
        self.last_sent = monotonic()

    def send(self, *messages: object) -> None:
        """Raises OSError when the parent is gone."""
        with self._lock:
            self._socket.sendall(b"".join(map(encode, messages)))
        self.last_sent = monotonic()

    def receive(self, *, wait: bool) -> list[object] | None:
        """What has come, if `wait` at least one message; None at the end."""
        found: list[object] = []
        while True:
            try:
                data = self._socket.recv(_READ_BYTES, 0 if wait and not found else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            if not data:
                return None
            found += self._frames.push(data)


class Worker:
    """An engine and its open requests, by the numbers of both sides."""

    def __init__(self, engine: Engine, link: Link) -> None:
        self._engine = engine
        self._link = link
        self._sequence_ids: dict[int, int] = {}  # by request
        self._request_ids: dict[int, int] = {}  # by sequence
        self._last_counted = -COUNT_SECONDS
        self._waiting: set[int] = set()  # sequences of which no step has been seen
        self._preparing = Preparing(engine)

    def run(self) -> None:
        """Until the socket's end."""
        engine, preparing = self._engine, self._preparing
        self._count()
        while (messages := self._link.receive(wait=not self._has_work)) is not None:
            for message in messages:
                self._take(message)
            for submit in preparing.done():
                self._submit(submit)
            if engine.has_work:
                self._step()
            elif preparing.has_work:
                sleep(PREPARING_SECONDS)
            elif engine.has_idle_work:
                self._read_at_leisure()
            self._count()

    @property
    def _has_work(self) -> bool:
        return self._engine.has_work or self._engine.has_idle_work or self._preparing.has_work

    def _take(self, message: object) -> None:
        match message:
            case Submit() if message.request.grammars:
                self._preparing.add(message)
            case Submit():
                self._submit(message)
            case Cancel(request_id):
                self._cancel(request_id)
            case Remember(request):
                self._guarded(partial(self._engine.remember, request), "to remember a prompt")
            case _:
                raise ProtocolError(f"a {type(message).__name__} is nothing that a parent says")

    def _read_at_leisure(self) -> None:
        self._guarded(self._engine.idle_step, "to read at leisure")

    def _guarded(self, call: Callable[[], object], where: str) -> None:
        """What nobody waits for: when it fails, the parent's log is told."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - requests go on
            self._link.send(Failed((), Failure.of(error, where, traceback.format_exc())))

    def _count(self) -> None:
        """Say what was counted, when there is nothing else to do, and every second at most otherwise."""
        engine = self._engine
        if self._has_work and monotonic() - self._last_counted < COUNT_SECONDS:
            return
        self._last_counted = monotonic()
        self._link.send(Counted.of(engine.instruments, engine.levels))

    def _submit(self, message: Submit) -> None:
        try:
            sequence_id = self._engine.add(message.request)
        except Exception as error:  # noqa: BLE001 - it is the asker's
            failure = Failure.of(error, "to take the request", traceback.format_exc())
            self._link.send(Failed((message.request_id,), failure))
            return
        self._sequence_ids[message.request_id] = sequence_id
        self._request_ids[sequence_id] = message.request_id
        self._waiting.add(sequence_id)

    def _cancel(self, request_id: int) -> None:
        self._preparing.drop(request_id)
        sequence_id = self._sequence_ids.get(request_id)
        if sequence_id is not None:
            self._engine.cancel(sequence_id)
            self._forget(sequence_id)

    def _step(self) -> None:
        try:
            events = self._engine.step()
        except Exception as error:  # noqa: BLE001 - the other requests go on
            self._fail_dropped(error)
            return
        told = [(self._request_ids[event.sequence_id], event) for event in events]
        self._waiting.difference_update(event.sequence_id for event in events)
        began = self._no_longer_waiting()
        if told or began or monotonic() - self._link.last_sent > ALIVE_SECONDS:
            self._link.send(Stepped.of(told, began))
        for event in events:
            if event.finish:
                self._forget(event.sequence_id)

    def _fail_dropped(self, error: Exception) -> None:
        """A step failed: the requests that were in it are over."""
        waiting, running = self._engine.waiting_ids, self._engine.running_ids
        dropped = [i for i in self._request_ids if i not in waiting and i not in running]
        if not dropped:  # whatever it was, the next step must not fail in the same way, for ever
            dropped = [i for i in self._request_ids if i not in waiting] or list(self._request_ids)
        failure = Failure.of(error, "in a step", traceback.format_exc())
        self._link.send(Failed(tuple(self._request_ids[i] for i in dropped), failure))
        for sequence_id in dropped:
            self._engine.cancel(sequence_id)
            self._forget(sequence_id)

    def _no_longer_waiting(self) -> tuple[int, ...]:
        """Requests that a step has taken up since the last call, and of which no event told."""
        if not self._waiting:
            return ()
        began = self._waiting - self._engine.waiting_ids
        self._waiting -= began
        return tuple(self._request_ids[i] for i in began)

    def _forget(self, sequence_id: int) -> None:
        self._waiting.discard(sequence_id)
        del self._sequence_ids[self._request_ids.pop(sequence_id)]


def run_child(opener: Opener) -> None:
    """The whole of a child's main module, started by `engine/child.py`."""
    end = socket.socket(fileno=int(sys.argv[1]))
    sys.exit(serve(end, opener, int(sys.argv[2]) or None))


def serve(end: socket.socket, opener: Opener, parent_id: int | None = None) -> int:
    """Open an engine as the first message says, run it until the socket ends. The process's exit code.

    parent_id  of a parent whose main thread started us: then the system ends us with it, whatever we are doing
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches parent and child: the parent's business
    _end_with_parent(end, parent_id)
    with suppress(BrokenPipeError, ConnectionResetError):
        return _serve(Link(end), opener)
    return 0


def _serve(link: Link, opener: Opener) -> int:
    _send_warnings(link)
    messages = link.receive(wait=True)
    if not messages or not isinstance(messages[0], Open):
        return 0
    try:
        engine, facts = opener(messages[0].options, _loading(link))
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 - told, not shown
        link.send(NotOpened(Failure.of(error, "to open the model", traceback.format_exc())))
        return 1
    link.send(Ready(engine.config, facts))
    Worker(engine, link).run()
    return 0


def _end_with_parent(end: socket.socket, parent_id: int | None) -> None:
    """Also in the middle of loading, or of a step that takes long."""
    if parent_id is not None and sys.platform == "linux":
        CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_id:  # it ended before
            os._exit(0)

    def watch() -> None:
        poll = select.poll()
        poll.register(end, 0)  # nothing but its end
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="end of the parent").start()


def _send_warnings(link: Link) -> None:
    """Ours go to the parent, those of libraries to standard error."""
    warnings.simplefilter("always", QwickWarning)
    others = warnings.showwarning

    def show(message: Warning | str, *details: Any, **more: Any) -> None:
        if isinstance(message, QwickWarning):
            link.send(Warned(type(message).__name__, str(message)))
        else:
            others(message, *details, **more)

    warnings.showwarning = show


def _loading(link: Link) -> Callable[[int, int], None]:
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if done >= total or monotonic() - last > _LOADING_SECONDS:
            last = monotonic()
            link.send(Loading(done, total))

    return progress
