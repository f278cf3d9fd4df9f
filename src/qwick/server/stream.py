"""Answers as server-sent events: framing, and whom a stream may keep waiting.

A burst of tokens is one event for each kind of text in it, written at once. Chunks are put together from bytes that
stay the same for the whole stream: JSON is written for the text only.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from json import dumps
from json.encoder import encode_basestring_ascii
from time import monotonic, time
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from qwick.api.answers import Json, ObjectName
from qwick.async_stream import AsyncStream
from qwick.server import errors
from qwick.server.errors import ApiError
from qwick.server.service import Gone, Note, Service

DONE = b"data: [DONE]\n\n"
PING = b": still reading the prompt\n\n"
PING_SECONDS = 10.0
MOST_WAITING = 4096  # tokens that may pile up behind a reader who takes nothing
WATCH_SECONDS = 1.0

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect what should be seen
)


def event(data: Json) -> bytes:
    """One event."""
    return b"data: " + dumps(data, separators=(",", ":")).encode() + b"\n\n"


class Chunks:
    """The chunks of one stream, `form` and all. Choices are told apart by their index."""

    def __init__(self, form: ObjectName, answer_id: str, model: str, *, has_usage: bool) -> None:
        name = "chat.completion.chunk" if form == "chat.completion" else form
        self._head: Json = {"id": answer_id, "object": name, "created": int(time()), "model": model}
        self._usage: Json = {"usage": None} if has_usage else {}
        self._plain: dict[tuple[int, str], tuple[bytes, bytes]] = {}
        self._is_chat = form == "chat.completion"

    def choice(self, index: int, content: Json, warnings: Sequence[str] = (), **more: Any) -> bytes:
        """`content`: a chat's `delta`, or `text` and what goes with it. `warnings` stand beside the choices."""
        shown = {"delta": content} if self._is_chat else content
        choice = {"index": index, **shown, "logprobs": None, "finish_reason": None} | more
        told = {"warnings": list(warnings)} if warnings else {}
        return event(self._head | {"choices": [choice]} | self._usage | told)

    def text(self, index: int, field: str, text: str) -> bytes:
        """A piece of text and nothing else: `choice`, with no more work than the text makes."""
        found = self._plain.get((index, field))
        if found is None:
            before, after = self.choice(index, {field: "\0"}).split(rb'"\u0000"')
            found = self._plain[index, field] = (before, after)
        return found[0] + encode_basestring_ascii(text).encode() + found[1]

    def ending(self, used: Json | None) -> bytes:
        """The last of a stream, with the counts if they were asked for."""
        usage = b"" if used is None else event(self._head | {"choices": [], "usage": used})
        return usage + DONE


async def with_pings(frames: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """`frames`, and comments that keep proxies from giving up while a long prompt is read."""
    async with aclosing(frames):
        first = asyncio.ensure_future(anext(frames, None))
        try:
            while not (await asyncio.wait({first}, timeout=PING_SECONDS))[0]:
                yield PING
        finally:
            first.cancel()
        if (frame := first.result()) is not None:
            yield frame
            async for frame in frames:
                yield frame


async def merged(sources: Sequence[AsyncIterator[bytes]]) -> AsyncGenerator[bytes]:
    """Frames of several choices, as they come; a slow reader holds all of them up. The first error ends it."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(4 * len(sources))

    async def pump(source: AsyncIterator[bytes]) -> None:
        try:
            async for frame in source:
                await queue.put(frame)
        finally:
            await queue.put(None)

    pumps = [asyncio.ensure_future(pump(source)) for source in sources]
    try:
        left = len(pumps)
        while left:
            if (frame := await queue.get()) is not None:
                yield frame
                continue
            left -= 1
            for done in pumps:
                if done.done():
                    done.result()
        await asyncio.gather(*pumps)
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


class EventStream(Response):
    """`frames` to whoever asked. What goes wrong after the first byte is an event of the stream.

    streams   what the frames come from: closed when nobody wants them any more
    finished  called once, however it ended
    """

    def __init__(
        self,
        service: Service,
        note: Note,
        frames: AsyncGenerator[bytes],
        streams: Sequence[AsyncStream],
        finished: Callable[[], object],
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._service, self._note = service, note
        self._frames, self._streams, self._finished = frames, streams, finished
        self._blocked_since: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *self.raw_headers]})
        send = scope.get("qwick.send", send)  # past what frameworks wrap around it, which is for the start only
        try:
            await self._service.bounded(self._watched(send), receive, self._note)
            await send({"type": "http.response.body", "body": b""})
        except Gone as gone:
            self._note.told["ended"] = str(gone)
        except Exception as error:  # noqa: BLE001 - whatever it was, who reads is told
            await self._tell(send, errors.of(error))
        finally:
            for stream in self._streams:
                stream.close()
            self._finished()

    async def _watched(self, send: Send) -> None:
        """Write all of it. Raises Gone where the reader takes nothing for too long."""
        writing = asyncio.ensure_future(self._write(send))
        try:
            while not (await asyncio.wait({writing}, timeout=WATCH_SECONDS))[0]:
                if self._is_stuck():
                    raise Gone("slow reader")
            writing.result()
        finally:
            writing.cancel()

    def _is_stuck(self) -> bool:
        since = self._blocked_since
        if since is None:
            return False
        waiting = sum(stream.num_waiting for stream in self._streams)
        return waiting > MOST_WAITING or monotonic() - since > self._service.options.reader_seconds

    async def _write(self, send: Send) -> None:
        async with aclosing(with_pings(self._frames)) as frames:
            async for frame in frames:
                self._blocked_since = monotonic()
                await send({"type": "http.response.body", "body": frame, "more_body": True})
                self._blocked_since = None

    async def _tell(self, send: Send, error: ApiError) -> None:
        self._note.told["error"] = error.word
        await send({"type": "http.response.body", "body": event(error.body) + DONE})
