"""One child process and the socket to it, as an asyncio protocol. It says what it hears and how the child ended."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import cast

from qwick.engine.protocol import Frames, Open, ProtocolError, encode
from qwick.errors import EngineError

_CLOSE_SECONDS = 5.0
_READ_BYTES = 1 << 16
_SOCKET_BYTES = 1 << 20  # so that steps go on while the parent is busy


class Child(asyncio.BufferedProtocol):
    """`module` is run with `python -m`, `take` gets its messages. `open` comes first, `close` last."""

    def __init__(self, module: str, take: Callable[[object], None]) -> None:
        self._module, self._take = module, take
        self._frames = Frames()
        self._buffer = memoryview(bytearray(_READ_BYTES))  # one for all: asyncio would map 256 KiB for each read
        self._ended = asyncio.get_running_loop().create_future()
        self._popen: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._heard = False
        self._killed_for = ""

    async def open(self, options: object) -> None:
        """Start it. Raises EngineError when the system has no process for us."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                for end in (ours, theirs):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
                self._popen = _start(self._module, theirs)
            await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
        except OSError as error:
            ours.close()
            raise EngineError(f"cannot start a process for the engine: {error}") from None
        self.send(Open(options))

    @property
    def pid(self) -> int | None:
        """None before `open`."""
        return self._popen.pid if self._popen else None

    def send(self, message: object) -> None:
        """Say something; it is lost when the child has ended."""
        if self._transport and not self._transport.is_closing():
            self._transport.write(encode(message))

    async def ends_within(self, seconds: float) -> bool:
        """Whether its end of the socket is closed now, or will be so soon."""
        await asyncio.wait([self._ended], timeout=seconds)
        return self._ended.done()

    def was_heard(self) -> bool:
        """Whether it said anything since the last call."""
        heard, self._heard = self._heard, False
        return heard

    def kill(self, why: str) -> None:
        """`why` is what `reason` will say."""
        self._killed_for = self._killed_for or why
        if self._popen:
            self._popen.kill()

    async def reason(self) -> str:
        """How it ended, to follow "the engine's process". Its socket is closed; it itself follows, or is made to."""
        code = await self._exit_code(_CLOSE_SECONDS)
        if self._killed_for:
            return self._killed_for
        if code == -signal.SIGKILL:
            return "was killed (most likely because memory was short)"
        return f"ended with {_signal_name(-code)}" if code < 0 else f"ended by itself (exit code {code})"

    async def close(self) -> None:
        """Idempotent."""
        if self._transport:
            self._transport.close()
        await self._exit_code(_CLOSE_SECONDS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio.BaseProtocol."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Of asyncio.BufferedProtocol."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Of asyncio.BufferedProtocol."""
        self._heard = True
        try:
            for message in self._frames.push(self._buffer[:nbytes]):
                self._take(message)
        except ProtocolError as error:
            self.kill(f"said what is no message ({error}) and was ended")

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio.BaseProtocol."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def _exit_code(self, seconds: float) -> int:
        if self._popen is None:
            return 0
        wait = partial(asyncio.get_running_loop().run_in_executor, None, self._popen.wait)
        if self._popen.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                return await wait(seconds)
            self._popen.kill()
        return await wait(None)


def _start(module: str, theirs: socket.socket) -> subprocess.Popen[bytes]:
    # The system ends the child with the thread that started it: of use when that lives as long as the process.
    parent_id = os.getpid() if threading.current_thread() is threading.main_thread() else 0
    # -P: what lies in the folder that we happen to be in must not be imported.
    command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(parent_id)]
    environment = {
        "OPENBLAS_NUM_THREADS": "1",  # as in cli/main.py
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        env=environment,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
