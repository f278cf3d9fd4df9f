"""Requests whose grammars are made in a thread of their own, one after another, while others are answered."""

from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

from qwick.engine.engine import Engine
from qwick.engine.protocol import Submit

PREPARING_SECONDS = 0.002  # between two looks, while nothing else is to do


class Preparing:
    """Between a message that asks and the engine; to be used in the engine's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[int, Submit] = {}  # by request
        self._asked: SimpleQueue[Submit] = SimpleQueue()
        self._done: SimpleQueue[Submit] = SimpleQueue()
        self._thread: Thread | None = None

    @property
    def has_work(self) -> bool:
        return bool(self._open)

    def add(self, submit: Submit) -> None:
        """One more, which `done` will give back."""
        self._open[submit.request_id] = submit
        self._asked.put(submit)
        if self._thread is None:  # most engines never see a grammar
            self._thread = Thread(target=self._run, daemon=True, name="grammars")
            self._thread.start()

    def drop(self, request_id: int) -> None:
        """Nobody wants it any more."""
        self._open.pop(request_id, None)

    def done(self) -> Iterator[Submit]:
        """Those that the engine may take now, in the order in which they were added."""
        while not self._done.empty():
            submit = self._done.get()
            if self._open.pop(submit.request_id, None) is not None:
                yield submit

    def _run(self) -> None:
        while True:
            submit = self._asked.get()
            if submit.request_id in self._open:
                with suppress(Exception):  # whatever is wrong, `Engine.add` tells
                    self._engine.prepare(submit.request)
            self._done.put(submit)
