"""A server from its first socket to its last answer."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from qwick.async_llm import AsyncLLM
from qwick.errors import UsageError
from qwick.server.app import make_app
from qwick.server.options import ServerOptions
from qwick.server.service import Service

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AFTER_CUT = 5  # seconds to say so to those who were cut


class _Server(uvicorn.Server):
    """A first signal lets answers finish, a second one does not; the process ends as a command does."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Once or twice."""
        self.force_exit |= self.should_exit
        self.should_exit = True
        self._service.drain()


def listen(host: str, port: int) -> socket.socket:
    """The socket that callers will reach; port 0: any. Raises UsageError."""
    if not 0 <= port < 1 << 16:  # the system would take the rest of a division
        raise UsageError(f"cannot listen on port {port}; ports are 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}, port {port}: {error}; --host and --port name another") from None


def leave_slow_readers(bound: socket.socket, seconds: float) -> None:
    """Connections whose other end takes nothing of what was sent, where the system can: a whole answer waits there."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


def serve(
    options: ServerOptions,
    llm: Callable[[], AsyncLLM],
    bound: socket.socket,
    *,
    ssl: dict[str, Any] | None = None,
    ready: Callable[[Service], None] = lambda _: None,
) -> None:
    """Until a signal ends it. `ready` is called when the model is open. Raises what opening it raises."""
    asyncio.run(_serve(options, llm, bound, ssl or {}, ready))


async def _serve(
    options: ServerOptions,
    llm: Callable[[], AsyncLLM],
    bound: socket.socket,
    ssl: dict[str, Any],
    ready: Callable[[Service], None],
) -> None:
    service = Service(options, llm())
    leave_slow_readers(bound, options.reader_seconds)
    config = uvicorn.Config(
        make_app(service),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(options.drain_seconds) + _AFTER_CUT,
        **ssl,
    )
    server = _Server(config, service)
    listening = asyncio.ensure_future(server.serve(sockets=[bound]))
    opening = asyncio.ensure_future(service.open())
    try:
        await asyncio.wait({listening, opening}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            ready(service)
        await listening
    finally:
        server.should_exit = True
        opening.cancel()
        await asyncio.gather(opening, listening, return_exceptions=True)
        await service.close()


def log_to_stderr(level: str) -> None:
    """One line of JSON each, without what anybody asked."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    for name in ("qwick", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level.upper() if name == "qwick" or level == "error" else logging.WARNING)
        logger.propagate = False


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from json import dumps, loads

        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
        }
        text = record.getMessage()
        line |= loads(text) if record.name == "qwick.server.requests" else {"message": text}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return dumps(line)
