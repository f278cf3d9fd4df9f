"""The parent's side of an engine in its own process: it is started, watched and started again here.

Everything happens in one asyncio event loop. A fault of the child fails the requests that it touched, with an
EngineError; those that only waited go to the next child. One of them may have been the cause, in the very step that
took it up: so each of them is tried alone, and the next follows when it has got a token.
"""

import asyncio
import logging
import warnings
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from qwick.engine.child import Child
from qwick.engine.protocol import (
    Cancel,
    Counted,
    Failed,
    Failure,
    Loading,
    NotOpened,
    ProtocolError,
    Ready,
    Remember,
    Stepped,
    Submit,
    Warned,
)
from qwick.engine.request import Event, Request
from qwick.engine.ticket import Ticket
from qwick.errors import EngineError, QwickError, UsageError
from qwick.model.source import LoadProgress

HANG_SECONDS = 300.0  # a step may take that long: 512 rows of the largest model in plain C++
MOST_DELAY = 30.0  # seconds before a child is started again
_FIRST_DELAY = 0.25
_HANG_TICKS = 5

log = logging.getLogger("qwick.engine")
log.addHandler(logging.NullHandler())  # who wants to read it adds a handler


class EngineProcess:
    """An engine behind a socket. To be made and used in one event loop.

    module        run with `python -m`: calls `worker.run_child`
    options       what its opener needs to know
    progress      called with (bytes done, bytes in all) while a child loads
    hang_seconds  a child that is silent so long while there is work is ended
    """

    def __init__(
        self,
        module: str,
        options: object,
        *,
        progress: LoadProgress | None = None,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self._module, self._options, self._progress = module, options, progress
        self._hang_seconds = hang_seconds
        self._tickets: dict[int, Ticket] = {}
        self._unsent: deque[Ticket] = deque()
        self._tried: Ticket | None = None  # the suspect that the child has
        self._last_id = 0
        self._child: Child | None = None
        self._ready: Ready | None = None
        self._opened: asyncio.Future[Ready] | None = None
        self._not_opened: QwickError | None = None
        self._wanted = asyncio.Event()  # a child should be there
        self._keeper: asyncio.Task[None] | None = None
        self._served = False  # the child at hand has finished a request
        self.counted = Counted({}, {})  # as the child said last, a second ago at most while it works
        self.num_starts = 0

    async def start(self) -> Ready:
        """Until requests can be answered. Raises what the opener raises, or EngineError."""
        self._opened = asyncio.get_running_loop().create_future()
        self._wanted.set()
        self._keeper = asyncio.create_task(self._keep(), name="engine process")
        try:
            return await self._opened
        except BaseException:
            await self.close()
            raise

    @property
    def pid(self) -> int | None:
        """Of the child; None between two."""
        return None if self._child is None else self._child.pid

    @property
    def is_ready(self) -> bool:
        return self._ready is not None

    @property
    def num_open(self) -> int:
        """Requests that are not over."""
        return len(self._tickets)

    def submit(self, request: Request) -> Ticket:
        """Ask; between two children it waits. Raises UsageError after `close`."""
        if self._keeper is None or self._keeper.done():
            raise UsageError("this model is closed; open it again")
        self._last_id += 1
        ticket = self._tickets[self._last_id] = Ticket(self._last_id, request, self._cancel)
        self._unsent.append(ticket)
        self._wanted.set()
        self._send_unsent()
        return ticket

    def remember(self, request: Request) -> None:
        """Have a prompt read when nothing else is to do. It is forgotten when there is no child just now."""
        if self._child and self._ready:
            self._child.send(Remember(request))

    async def close(self) -> None:
        """End the child; what is under way fails. Idempotent."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        self._fail(list(self._tickets), UsageError("the model was closed while this answer was under way"))

    async def _keep(self) -> None:
        """One child after another, as long as one is wanted."""
        delay = 0.0
        while True:
            await self._wanted.wait()
            await asyncio.sleep(delay)
            self._served, self._not_opened = False, None
            try:
                error = await self._one_child()
            except EngineError as no_process:
                error = no_process
                self._fail(list(self._tickets), error)
                self._wanted.clear()
            log.error("%s", error)
            if self._opened and not self._opened.done():
                self._opened.set_exception(error)
            delay = 0.0 if self._served else min(max(_FIRST_DELAY, 2 * delay), MOST_DELAY)

    async def _one_child(self) -> QwickError:
        """From start to end; what was said to those whom the end touched."""
        child = Child(self._module, self._take)
        try:
            self._child = child
            await child.open(self._options)
            self.num_starts += 1
            silent_ticks = 0
            # Ticks, not seconds: while this process itself is stopped (a debugger, a suspended laptop) none passes.
            while not await child.ends_within(self._hang_seconds / _HANG_TICKS):
                silent_ticks = 0 if child.was_heard() or not self._tickets or not self._ready else silent_ticks + 1
                if silent_ticks >= _HANG_TICKS:
                    child.kill(f"did not answer for {self._hang_seconds:g} s and was ended")
            return self._over(await child.reason())
        finally:
            self._child = self._ready = None
            self.counted = Counted({}, {})  # nothing runs and nothing waits where nobody is
            await child.close()

    def _over(self, why: str) -> QwickError:
        """The child ended by itself. Requests that it touched fail."""
        was_ready, self._child, self._ready = self._ready is not None, None, None
        doing = "while it worked on this request" if was_ready else "while it opened the model"
        error = self._not_opened or EngineError(f"the engine's process {why} {doing}; it is started anew, ask again")
        touched = [i for i, t in self._tickets.items() if not was_ready or t.began or t is self._tried]
        unsent = {ticket.request_id for ticket in self._unsent}
        self._fail(touched, error)
        for request_id, ticket in self._tickets.items():
            ticket.is_suspect |= request_id not in unsent
        self._unsent = deque(self._tickets.values())
        if not was_ready:
            self._wanted.clear()  # most likely it would fail again; the next request tries
        return error

    def _cancel(self, ticket: Ticket) -> None:
        if self._tickets.pop(ticket.request_id, None) is None:
            return
        if self._child and self._ready:
            self._child.send(Cancel(ticket.request_id))  # when it was not sent yet, the child knows nothing of it
        self._clear(ticket)

    def _send_unsent(self) -> None:
        while self._child and self._ready and self._unsent and not self._tried:
            ticket = self._unsent.popleft()
            if ticket.request_id in self._tickets:
                self._child.send(Submit(ticket.request_id, ticket.request))
                self._tried = ticket if ticket.is_suspect else None

    def _clear(self, ticket: Ticket) -> None:
        """It has got a token, or is over: the next one's turn, if it was suspected."""
        if ticket is self._tried:
            self._tried = None
            self._send_unsent()

    def _fail(self, request_ids: Iterable[int], error: QwickError) -> None:
        for request_id in request_ids:
            if ticket := self._tickets.pop(request_id, None):
                ticket.fail(error)
                self._clear(ticket)

    def _take(self, message: object) -> None:
        """What the child says."""
        match message:
            case Stepped():
                self._take_step(message.events, message.began)
            case Failed(request_ids, failure):
                self._fail(request_ids, _told(failure))
            case Counted():
                self.counted = message
            case Loading(done, total):
                if self._progress:
                    self._progress(done, total)
            case Ready():
                self._take_ready(message)
            case NotOpened(failure):
                self._not_opened = _told(failure)
            case Warned():
                warnings.warn(message.warning, stacklevel=2)
            case _:
                raise ProtocolError(f"a {type(message).__name__} is nothing that a child says")

    def _take_step(self, events: Iterable[tuple[int, Event]], began: Iterable[int]) -> None:
        for request_id, event in events:
            if ticket := self._tickets.get(request_id):
                ticket.push(event)
                self._clear(ticket)
                if event.finish:
                    del self._tickets[request_id]
                    self._served = True
        for request_id in began:
            if ticket := self._tickets.get(request_id):
                ticket.began = True

    def _take_ready(self, ready: Ready) -> None:
        self._ready = ready
        if self._opened and not self._opened.done():
            self._opened.set_result(ready)
        self._send_unsent()


def _told(failure: Failure) -> QwickError:
    """As an error to be raised; where it came from is for the log."""
    log.error("%s\n%s", failure.text, failure.traceback)
    return failure.error
