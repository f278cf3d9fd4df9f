"""A program at a terminal of its own: type, and wait for what it shows."""

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Self

PATIENCE = 120.0  # seconds; the machines are shared and slow, and no test is about speed

CTRL_C, CTRL_D, ENTER, ALT_ENTER, UP = "\x03", "\x04", "\r", "\x1b\r", "\x1b[A"
# In `seen`: the line editor waits for a line, and has got it (it turns bracketed paste on and off).
READY, TAKEN = "\ue000", "\ue001"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07]*\x07")
# Gives the child its own controlling terminal, so that Ctrl-C is a signal, then becomes the program.
LAUNCH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """`raw` is all that was shown; `expect` looks only at what came after its last match."""

    def __init__(self, *arguments: str, home: Path, **environment: str) -> None:
        self._controller, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("QWICK_", "XDG_", "NO_COLOR"))}
        # NO_CPR: nobody here answers the line editor's question where the cursor is.
        own = {"HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=kept | own | environment,
            start_new_session=True,
        )
        os.close(terminal)
        self.raw = b""
        self._from = 0  # in `seen`

    @property
    def seen(self) -> str:
        """All text that was shown, without escape sequences."""
        text = self.raw.decode(errors="replace").replace("\x1b[?2004h", READY).replace("\x1b[?2004l", TAKEN)
        return ESCAPES.sub("", text)

    def type(self, text: str | bytes) -> None:
        os.write(self._controller, text if isinstance(text, bytes) else text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until `pattern` is shown; the match, over text without escape sequences."""
        deadline = time.monotonic() + PATIENCE
        while True:
            shown = self.seen[self._from :]
            match = re.search(pattern, shown)
            if match:
                self._from += match.end()
                return match
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} did not come; shown was {shown!r}")

    def enter(self, *lines: str) -> None:
        """Wait for the line editor and type each line into it."""
        for line in lines:
            self.expect(READY)
            self.type(line + ENTER)

    def end(self) -> int:
        """Wait for the program's end; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(timeout=PATIENCE)

    def _read(self, deadline: float) -> bool:
        """Take what was shown meanwhile; False at the end of the program or of patience."""
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._controller], [], [], left)[0]:
            return False
        try:
            data = os.read(self._controller, 1 << 16)
        except OSError:  # Linux says so when the last process has gone
            return False
        self.raw += data
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._controller)
