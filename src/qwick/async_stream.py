"""An answer that grows, behind asyncio: from the question's rendering to the engine's last event."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from qwick.engine.ticket import Ticket
from qwick.errors import UsageError
from qwick.prompting import Asked
from qwick.streams import Burst, Completion, GrowingAnswer
from qwick.text.segments import AnySegment, Kind


class AsyncStream(AsyncIterator[str]):
    """The pieces of one answer's text; `segments` gives reasoning and tool calls too. It begins when one is wanted.

    Dropping it, `close`, and cancelling the task that waits for a piece all end the generation within a step; `stop`
    ends it with what there is as the completion. Raises what `LLM.chat` does, and EngineError when the engine failed.
    """

    def __init__(self, ask: "Callable[[], asyncio.Future[Asked]]", submit: "Callable[[Asked], Ticket]") -> None:
        self._ask, self._submit = ask, submit
        self._asked: Asked | None = None
        self._growing: GrowingAnswer | None = None
        self._ticket: Ticket | None = None
        self._is_closed = False

    async def __anext__(self) -> str:
        while (segment := await self._next()) is not None:
            if segment.kind is Kind.CONTENT:
                return segment.text
        raise StopAsyncIteration

    async def segments(self) -> AsyncIterator[AnySegment]:
        """The pieces with their kinds, reasoning first, and tool calls as they grow (CallSegment).

        Each piece comes once, here or by iterating the stream.
        """
        while (segment := await self._next()) is not None:
            yield segment

    async def burst(self) -> Burst | None:
        """All that came since the last one, waiting for at least a token; None after the end. Instead of iterating."""
        growing, ticket = await self._start()
        if growing.completion is not None:
            return growing.burst() if growing.waiting else None
        await self._advance(growing, ticket)
        return growing.burst()

    async def completion(self) -> Completion:
        """The whole answer; waits for what is still missing."""
        growing, ticket = await self._start()
        while growing.completion is None:
            await self._advance(growing, ticket)
        return growing.completion

    async def stop(self) -> Completion:
        """End the answer here; the completion says `cancelled` if it was not at its end."""
        growing, ticket = await self._start()
        if growing.completion is None:
            ticket.cancel()
            growing.end("cancelled")
        return await self.completion()

    async def prepare(self) -> int:
        """Turn the question into tokens, and ask nothing of the engine yet. How many the prompt has."""
        if self._asked is None:
            self._asked = await self._ask()
        return len(self._asked.request.token_ids)

    @property
    def num_waiting(self) -> int:
        """Tokens that came and that nobody has taken."""
        return 0 if self._ticket is None else self._ticket.num_waiting

    def close(self) -> None:
        """Stop generating. What was not finished has no completion."""
        self._is_closed = True
        if self._ticket is not None:
            self._ticket.cancel()

    async def _next(self) -> AnySegment | None:
        growing, ticket = await self._start()
        while not growing.waiting:
            if growing.completion is not None:
                return None
            await self._advance(growing, ticket)
        return growing.waiting.popleft()

    async def _start(self) -> tuple[GrowingAnswer, Ticket]:
        if self._growing is None or self._ticket is None:
            await self.prepare()
            assert self._asked is not None
            asked, self._asked = self._asked, None
            self._growing = GrowingAnswer(asked.answer, len(asked.request.token_ids))
            self._ticket = self._submit(asked)
            weakref.finalize(self, _cancel_soon, asyncio.get_running_loop(), self._ticket).atexit = False
        return self._growing, self._ticket

    async def _advance(self, growing: GrowingAnswer, ticket: Ticket) -> None:
        if self._is_closed:
            raise UsageError("the answer was closed before it was finished")
        try:
            events = await ticket.events()
        except asyncio.CancelledError:
            self.close()
            raise
        for event in events:
            if growing.take(event):
                ticket.cancel()
                return


def _cancel_soon(loop: asyncio.AbstractEventLoop, ticket: Ticket) -> None:
    """From any thread: nobody knows where a garbage collection happens."""
    with suppress(RuntimeError):  # the loop is closed, and so is everything in it
        loop.call_soon_threadsafe(ticket.cancel)
