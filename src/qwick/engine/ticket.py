"""A request to an engine in another process, as whoever asked holds it: its events, as they come."""

import asyncio
from collections.abc import Callable

from qwick.engine.request import Event, Request
from qwick.errors import QwickError


class Ticket:
    """`cancel` is what to call when nobody wants it any more."""

    def __init__(self, request_id: int, request: Request, cancel: "Callable[[Ticket], None]") -> None:
        self.request_id = request_id
        self.request = request
        self.began = False  # a step has taken it up
        self.is_suspect = False  # was with a child when that ended
        self._cancel = cancel
        self._events: list[Event] = []
        self._is_over = False
        self._error: QwickError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def events(self) -> list[Event]:
        """Those since the last call, at least one; none after the last.

        Raises what ended the request: EngineError, CapacityError, …
        """
        while not self._events and not self._is_over:
            if self._error is not None:
                raise type(self._error)(
                    *self._error.args
                )  # a new one: the traceback of this one would hold its callers
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        events, self._events = self._events, []
        return events

    @property
    def num_waiting(self) -> int:
        """Events that nobody has taken yet."""
        return len(self._events)

    def cancel(self) -> None:
        """No more of it. Fine when it is over."""
        self._cancel(self)

    def push(self, event: Event) -> None:
        """One more."""
        self.began = True
        self._events.append(event)
        self._is_over = event.finish is not None
        self._wake()

    def fail(self, error: QwickError) -> None:
        """No more come, and why."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
