"""One request's way from a question to its response, for chats and continuations alike, streamed or whole."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol
from uuid import uuid4

from starlette.responses import Response
from starlette.types import Receive

from qwick.api.answers import Json, ObjectName, whole
from qwick.api.endings import interventions, warnings_of
from qwick.async_stream import AsyncStream
from qwick.server.errors import AsciiJson
from qwick.server.service import Note, Place, Service
from qwick.server.stream import Chunks, EventStream, merged
from qwick.streams import Burst, Completion

FIRST_SECONDS = 2.0  # what is wrong with a question until then has a status; later it is an event of the stream


class Question(Protocol):
    """What the two routes do differently."""

    form: ObjectName
    prefix: str  # of answers' ids
    warnings: Sequence[str]
    is_streamed: bool
    includes_usage: bool
    count: int  # of answers

    async def ask(self) -> Sequence[AsyncStream]:
        """One stream for each answer. Nothing is generated before they are read."""
        ...

    def choice(self, index: int, completion: Completion) -> Json:
        """A whole answer."""
        ...

    def frames(self, index: int, answer: "Bursts", chunks: Chunks) -> AsyncGenerator[bytes]:
        """A streamed one."""
        ...

    def used(self, completions: Sequence[Completion]) -> Json:
        """Counts of tokens."""
        ...

    def done(self, completions: Sequence[Completion]) -> None:
        """All answers are there."""
        ...


class Bursts:
    """A stream's bursts, of which the first may have been asked for already."""

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream
        self._first: asyncio.Future[Burst | None] | None = None

    async def begin(self) -> None:
        """Wait for the first one, though not long. Raises what is wrong with the question."""
        self._first = asyncio.ensure_future(self._stream.burst())
        try:
            await asyncio.wait({self._first}, timeout=FIRST_SECONDS)
        except asyncio.CancelledError:
            self._first.cancel()
            raise
        if self._first.done():
            self._first.result()

    async def all(self) -> AsyncGenerator[Burst]:
        """To the end."""
        burst = await (self._stream.burst() if self._first is None else self._first)
        while burst is not None:
            yield burst
            burst = await self._stream.burst()

    async def completion(self) -> Completion:
        """After the last."""
        return await self._stream.completion()


async def respond(service: Service, question: Question, receive: Receive, note: Note) -> Response:
    """Raises ApiError, QwickError, and Gone where nobody waits any more."""
    place = service.admit(question.count)
    streams: Sequence[AsyncStream] = ()
    response: EventStream | None = None
    try:
        streams = await question.ask()
        await service.bounded(_hold(streams, place), receive, note)
        if question.is_streamed:
            answers = [Bursts(stream) for stream in streams]
            await service.bounded(answers[0].begin(), receive, note)
            frames = _frames(service, question, answers, note)
            response = EventStream(service, note, frames, streams, place.leave)
            return response
        completions = await service.bounded(_completions(streams), receive, note)
        question.done(completions)
        return AsciiJson(_body(service, question, completions, note))
    finally:
        if response is None:  # else the stream does it, at its end
            place.leave()
            for stream in streams:
                stream.close()


async def _hold(streams: Sequence[AsyncStream], place: Place) -> None:
    """Room for all prompts, before the engine has any of them."""
    for stream in streams:
        place.hold(await stream.prepare())


async def _completions(streams: Sequence[AsyncStream]) -> list[Completion]:
    """Of all; the first error ends them."""
    tasks = [asyncio.ensure_future(stream.completion()) for stream in streams]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _body(service: Service, question: Question, completions: Sequence[Completion], note: Note) -> Json:
    choices = [question.choice(index, completion) for index, completion in enumerate(completions)]
    used = question.used(completions)
    _tell(note, used, completions)
    body = whole(question.form, f"{question.prefix}-{uuid4().hex}", service.model_name, choices, used)
    warnings = [text for index, each in enumerate(completions) for text in warnings_behind(question, index, each)]
    return body | ({"warnings": warnings} if warnings else {})


def warnings_behind(question: Question, index: int, completion: Completion) -> list[str]:
    """What is said at an answer's end: of the answer, and with the first one of the question."""
    asked = list(question.warnings) if index == 0 else []
    return asked + warnings_of(completion, index if question.count > 1 else None)


async def _frames(service: Service, question: Question, answers: Sequence[Bursts], note: Note) -> AsyncGenerator[bytes]:
    chunks = Chunks(
        question.form,
        f"{question.prefix}-{uuid4().hex}",
        service.model_name,
        has_usage=question.includes_usage,
    )
    each = [question.frames(index, answer, chunks) for index, answer in enumerate(answers)]
    async for frame in each[0] if len(each) == 1 else merged(each):
        yield frame
    completions = [await answer.completion() for answer in answers]
    question.done(completions)
    used = question.used(completions)
    _tell(note, used, completions)
    yield chunks.ending(used if question.includes_usage else None)


def _tell(note: Note, used: Json, completions: Sequence[Completion]) -> None:
    note.told |= {name: used[name] for name in ("prompt_tokens", "completion_tokens")}
    note.told["cached_tokens"] = used["prompt_tokens_details"]["cached_tokens"]
    note.told["finish_reason"] = ",".join(completion.finish_reason for completion in completions)
    if done := interventions(completions):
        note.told["interventions"] = done
