"""What stands behind all routes: the model, who is being answered, and whether more may be asked."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any, TypeVar

from starlette.types import Receive

from qwick.async_llm import AsyncLLM
from qwick.errors import QwickError
from qwick.server import errors
from qwick.server.errors import ApiError
from qwick.server.options import ServerOptions
from qwick.store import find_model

T = TypeVar("T")
MOST_RETRY_SECONDS = 60

log = logging.getLogger("qwick.server")


@dataclass(slots=True)
class Note:
    """What the log and the metrics tell of one request; never what it said."""

    request_id: str
    started: float = field(default_factory=monotonic)
    key: str | None = None
    told: dict[str, Any] = field(default_factory=dict[str, Any])


class Gone(Exception):  # noqa: N818 - nothing is wrong
    """Who asked went away, or takes nothing of what is sent."""


class Place:
    """Of an admitted request, until `leave`, which may be called again."""

    def __init__(self, service: "Service", count: int) -> None:
        self._service, self._count, self._started = service, count, monotonic()
        self._tokens = 0

    def hold(self, tokens: int) -> None:
        """A prompt of so many tokens may wait. Raises ApiError (429) where too many do."""
        if tokens < self._service.opened.context_len:  # else it will be refused at once
            self._service.hold(tokens)
            self._tokens += tokens

    def leave(self) -> None:
        """Make room."""
        count, self._count = self._count, 0
        if count:
            self._service.leave(count, self._tokens, monotonic() - self._started)


class Service:
    """One model's. To be used in one event loop; `open` and `close` are the server's."""

    def __init__(self, options: ServerOptions, llm: AsyncLLM) -> None:
        self.options, self._llm = options, llm
        self.is_open, self.is_draining = False, False
        self.created = int(time())
        self.load_seconds = 0.0
        self.model_path = Path(options.model)
        self.model_bytes = 0  # of its files
        self.num_admitted = 0
        self.num_held = 0  # tokens of their prompts
        self.refused = 0
        self._mean_seconds = 1.0  # of an answer, of late
        self._cutoff: asyncio.Future[None] | None = None

    @property
    def llm(self) -> AsyncLLM:
        """Raises ApiError while the model is being read, and when the server stops."""
        self.require_ready()
        return self._llm

    @property
    def opened(self) -> AsyncLLM:
        """Without asking whether it may be asked."""
        return self._llm

    @property
    def is_ready(self) -> bool:
        return self.is_open and not self.is_draining

    @property
    def model_name(self) -> str:
        """The first that callers may call it."""
        return self.options.public_names[0]

    async def open(self) -> None:
        """Read the model. Raises QwickError."""
        started = monotonic()
        await self._llm.start()
        self.load_seconds = monotonic() - started
        self.model_path = find_model(self.options.model)
        self.model_bytes = _file_bytes(self.model_path)
        self.is_open = True

    async def close(self) -> None:
        """End the engine."""
        await self._llm.close()

    def drain(self) -> None:
        """No more questions; `drain_seconds` later what is still under way is ended, and told so."""
        if self.is_draining:
            return
        self.is_draining = True
        loop = asyncio.get_running_loop()
        loop.call_later(self.options.drain_seconds, self._cut)

    def require_ready(self) -> None:
        """Raises ApiError when nothing can be answered now."""
        if self.is_draining:
            raise errors.unavailable("the server is stopping", "stopping", 5)
        if not self.is_open:
            raise errors.unavailable("the model is being loaded; /ready tells when", "loading", 2)

    def check_model(self, name: str | None) -> None:
        """Raises ApiError for a model that is not here."""
        if name is not None and name not in self.options.public_names:
            known = ", ".join(self.options.public_names)
            told = f"there is no model {name!a:.200} here; there is {known} (--alias gives it more names)"
            raise ApiError(404, told, param="model", code="model_not_found")

    def admit(self, count: int) -> "Place":
        """Room for so many answers. Raises ApiError (429) where too many wait."""
        if self.num_admitted + count > self.options.engine.max_sequences + self.options.max_queue:
            raise self._full(f"{self.num_admitted} answers are under way or waiting", count)
        self.num_admitted += count
        return Place(self, count)

    def hold(self, tokens: int) -> None:
        """Raises ApiError (429) where the prompts of all together would take more memory than the queue has."""
        if self.num_held + tokens > self.options.limits.tokens + self._llm.context_len:
            raise self._full(f"prompts of {self.num_held:,} tokens are under way or waiting", 1)
        self.num_held += tokens

    def leave(self, count: int, tokens: int, seconds: float) -> None:
        """So many answers are over."""
        self.num_admitted -= count
        self.num_held -= tokens
        self._mean_seconds += (seconds - self._mean_seconds) / 16

    def _full(self, told: str, count: int) -> ApiError:
        self.refused += 1
        slots = self.options.engine.max_sequences
        wait = self._mean_seconds * max(self.num_admitted + count - slots, 1) / slots
        seconds = min(max(1, round(wait)), MOST_RETRY_SECONDS)
        return errors.busy(f"{told}; ask again in {seconds} s", "queue_full", seconds)

    async def bounded(self, work: Coroutine[Any, Any, T], receive: Receive, note: Note) -> T:
        """`work` as long as it is wanted: until who asked goes away (Gone), its time is over, or the server ends."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_until_gone(receive))
        left = note.started + self.options.timeout_seconds - monotonic()
        try:
            await asyncio.wait({task, gone, self._end()}, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise Gone("disconnected")
            if self._end().done():
                raise errors.unavailable("the server was stopped before this answer was finished", "stopping", 5)
            limit = f"{self.options.timeout_seconds:g} s"
            told = f"the answer was not finished within {limit}; ask for less, or give the server more --timeout"
            raise ApiError(504, told, errors.SERVER, code="timeout")
        finally:
            gone.cancel()
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, QwickError, ApiError):
                    await task

    def _end(self) -> "asyncio.Future[None]":
        if self._cutoff is None:
            self._cutoff = asyncio.get_running_loop().create_future()
        return self._cutoff

    def _cut(self) -> None:
        if not self._end().done():
            self._end().set_result(None)


def _file_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
