"""A child process for chat templates of unknown origin.

Jinja's sandbox keeps a template from Python's objects; it stops neither nested loops nor `{{ 'a' * 10 ** 10 }}`, which
run inside C and cannot be interrupted from within. A process can be given a memory limit, and be killed.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from qwick.errors import TemplateError
from qwick.text.quoting import Json

RENDER_SECONDS = 1.5  # of wall time; an ordinary template takes a few milliseconds
START_SECONDS = 30.0
MAX_REPLY_BYTES = 8 << 20  # JSON of the prompt; the longest context is some 2 MB of text


class TemplateProcess:
    """Renders with limits. The child starts at once, so that its 0.1 s passes beside the loading of the model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start()

    def render(self, source: str, variables: dict[str, Json]) -> str:
        """The rendered text. Raises TemplateError, also when the time or memory limit was met."""
        request = json.dumps({"source": source, "variables": variables}).encode() + b"\n"
        with self._lock:
            if self._child.poll() is not None:
                self._start()
            if not self._is_ready:
                self._read_line(START_SECONDS)
                self._is_ready = True
            reply = self._ask(request)
        if "error" in reply:
            raise TemplateError(f"the chat template failed: {reply['error']}")
        return reply["text"]

    def close(self) -> None:
        """End the child."""
        self._end()

    def _start(self) -> None:
        # -P: the folder of the script holds files of ours that must not be imported by chance.
        command = [sys.executable, "-P", str(Path(__file__).with_name("jinja_sandbox.py"))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"}
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us
            )
        except OSError as error:
            raise TemplateError(f"cannot start a process for the chat template: {error}") from None
        self._is_ready = False
        self._end = weakref.finalize(self, _end, self._child)

    def _ask(self, request: bytes) -> dict[str, Any]:
        try:
            stdin = cast("IO[bytes]", self._child.stdin)
            stdin.write(request)
            stdin.flush()
        except BrokenPipeError:
            raise TemplateError("the process that renders the chat template ended by itself; try again") from None
        return json.loads(self._read_line(RENDER_SECONDS))

    def _read_line(self, seconds: float) -> bytes:
        """One line of the child's output. When it does not come, or is too long, the child ends."""
        deadline = time.monotonic() + seconds
        output = cast("IO[bytes]", self._child.stdout).fileno()
        reply = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not reply.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._fail(f"did not end within {seconds:g} s")
                part = os.read(output, 1 << 20)
                reply += part
                if not part:
                    self._fail("ended its process, most likely by its need for memory")
                if len(reply) > MAX_REPLY_BYTES:
                    self._fail(f"wrote more than {MAX_REPLY_BYTES >> 20} MiB")
        return bytes(reply)

    def _fail(self, what: str) -> NoReturn:
        self.close()
        raise TemplateError(f"the chat template {what}; use another template, or no template at all")


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            if pipe:
                pipe.close()
