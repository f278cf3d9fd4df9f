"""What every request passes before any route sees it: its number, its key, its size, its time, its line in the log.

Plain ASGI, so that a stream's chunks go through untouched.
"""

import asyncio
import logging
import re
from collections import deque
from contextlib import suppress
from json import dumps
from time import monotonic
from typing import Protocol
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwick.server import errors
from qwick.server.errors import ApiError
from qwick.server.limits import Limits
from qwick.server.options import ApiKey, ServerOptions, key_of
from qwick.server.service import Gone, Note

OPEN_PATHS = frozenset({"/health", "/ready"})  # what a supervisor asks: nothing of the model is in the answer
BODY_SECONDS = 30.0  # between two pieces of a body
MOST_DISCARDED = 256 << 20  # bytes of one that is too long
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)

log = logging.getLogger("qwick.server.requests")


class Watcher(Protocol):
    """Whoever counts requests."""

    def request_done(self, path: str, status: int, seconds: float, note: Note) -> None:
        """One is over."""
        ...


class Gate:
    """In front of `app`. `scope["qwick.note"]` its Note, "qwick.send" and "qwick.discard" are `_Exchange`'s."""

    def __init__(self, app: ASGIApp, options: ServerOptions, watcher: Watcher) -> None:
        self._app, self._options, self._watcher = app, options, watcher
        self._bodies = _Bodies(options.limits)
        self._allowances = {key.digest: Allowance(key) for key in options.keys}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given_id = headers.get("x-request-id", "")
        note = Note(given_id if _REQUEST_ID.fullmatch(given_id) else f"req-{uuid4().hex}")
        scope["qwick.note"] = note
        exchange = _Exchange(receive, send, note.request_id, self._bodies)
        scope["qwick.send"], scope["qwick.discard"] = exchange.send, exchange.discard
        allowance: Allowance | None = None
        try:
            allowance = self._allowance(scope, headers)
            if allowance is not None:
                note.key = allowance.key.name
                allowance.enter()
            exchange.check_length(headers.get("content-length"))
            await self._app(scope, exchange.receive, exchange.send)
        except Gone as gone:
            note.told["ended"] = str(gone)
        except Exception as error:  # noqa: BLE001 - the caller is told, the log has the rest
            told = errors.of(error)
            note.told["error"] = told.word
            if exchange.status is None:
                await exchange.discard(told)
                await told.response(scope, receive, exchange.send)
        finally:
            exchange.leave()
            if allowance is not None:
                allowance.leave()
            self._done(scope, exchange.status or 499, note)

    def _allowance(self, scope: Scope, headers: Headers) -> "Allowance | None":
        """Of the key that came with it; None where none is needed. Raises ApiError."""
        if not self._options.keys or scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS":
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = key_of(self._options.keys, given.strip())
        if key is None or scheme.lower() != "bearer":
            told = "the API key is missing or wrong; send Authorization: Bearer KEY"
            raise ApiError(401, told, errors.DENIED, code="invalid_api_key")
        return self._allowances[key.digest]

    def _done(self, scope: Scope, status: int, note: Note) -> None:
        seconds = monotonic() - note.started
        route = scope.get("route")
        path = getattr(route, "path", None) or (scope["path"] if scope["path"] in OPEN_PATHS else "other")
        self._watcher.request_done(path, status, seconds, note)
        level = logging.DEBUG if scope["path"] in OPEN_PATHS | {"/metrics"} else logging.INFO
        if log.isEnabledFor(level):
            told = {"id": note.request_id, "method": scope["method"], "path": scope["path"][:200], "status": status}
            key = {} if note.key is None else {"key": note.key}
            log.log(level, "%s", dumps(told | key | {"seconds": round(seconds, 4)} | note.told))


class Allowance:
    """What a key may still ask."""

    def __init__(self, key: ApiKey) -> None:
        self.key = key
        self._running = 0
        self._recent: deque[float] = deque()  # when the last minute's requests came

    def enter(self) -> None:
        """One more request. Raises ApiError (429)."""
        now, key = monotonic(), self.key
        while self._recent and now - self._recent[0] > 60:
            self._recent.popleft()
        self._running += 1
        if key.max_concurrent is not None and self._running > key.max_concurrent:
            told = f"this key has {key.max_concurrent} requests under way, as many as it may"
            raise errors.busy(told, "key_concurrency", 1)
        if key.per_minute is not None:
            if len(self._recent) >= key.per_minute:
                wait = max(1, round(60 - (now - self._recent[0])))
                raise errors.busy(f"this key may ask {key.per_minute} times a minute", "key_rate", wait)
            self._recent.append(now)

    def leave(self) -> None:
        """It is over, also one that was refused."""
        self._running -= 1


class _Bodies:
    """Those of all requests that are not over."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self._held = limits, 0

    def hold(self, count: int) -> None:
        """So many bytes more. Raises ApiError (429)."""
        if self._held + count > self.limits.bodies_bytes:
            raise errors.busy("requests of others take all memory there is for them", "queue_full", 1)
        self._held += count

    def leave(self, count: int) -> None:
        """So many less."""
        self._held -= count


class _Exchange:
    """Both directions of one request."""

    def __init__(self, receive: Receive, send: Send, request_id: str, bodies: _Bodies) -> None:
        self._receive, self._send, self._bodies = receive, send, bodies
        self._max_bytes, self._held = bodies.limits.body_bytes, 0
        self._id = (b"x-request-id", request_id.encode())
        self._num_bytes = 0
        self._is_read = False
        self.status: int | None = None

    def check_length(self, told: str | None) -> None:
        """Before a byte of the body is read. Raises ApiError."""
        if told is not None and told.isdecimal() and int(told[:20]) > self._max_bytes:
            raise self._too_long()

    async def receive(self) -> Message:
        if self._is_read:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), BODY_SECONDS)
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {BODY_SECONDS:g} s", code="timeout") from None
        if message["type"] == "http.disconnect":
            raise Gone("disconnected")
        count = len(message.get("body", b""))
        self._num_bytes += count
        if self._num_bytes > self._max_bytes:
            raise self._too_long()
        self._bodies.hold(count)
        self._held += count
        self._is_read = not message.get("more_body", False)
        return message

    def leave(self) -> None:
        """The body is no longer needed."""
        self._bodies.leave(self._held)

    async def discard(self, error: ApiError) -> None:
        """Read on for a while: who is cut off while he sends does not read why."""
        left = MOST_DISCARDED if error.status in (413, 429) and not self._is_read else 0
        with suppress(TimeoutError):
            async with asyncio.timeout(BODY_SECONDS):
                while left > 0 and (message := await self._receive()).get("more_body", False):
                    left -= len(message.get("body", b""))

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], self._id]
        await self._send(message)

    def _too_long(self) -> ApiError:
        told = f"the body has more than {self._max_bytes:,} bytes; ask for less at once"
        return ApiError(413, told, code="body_too_large")
