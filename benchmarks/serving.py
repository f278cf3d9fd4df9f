"""A server of the benchmarks' own, and what the system knows of its processes (Linux, /proc)."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

READY_SECONDS = 300.0
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class Processes:
    """The `server` with this number, and its only child, the `engine`."""

    def __init__(self, server_id: int) -> None:
        (engine_id,) = Path(f"/proc/{server_id}/task/{server_id}/children").read_text().split()
        self._ids = {"server": server_id, "engine": int(engine_id)}

    def cpu_seconds(self) -> dict[str, float]:
        """User and system, since each began."""
        return {name: sum(map(int, _stat(number)[11:13])) / TICKS for name, number in self._ids.items()}

    def resident(self) -> dict[str, int]:
        """Bytes."""
        return {name: int(_stat(number)[21]) * PAGE for name, number in self._ids.items()}


@contextmanager
def serving(model: str, *flags: str) -> Iterator[tuple[str, Processes]]:
    """`qwick serve` on any free port, until the end: its address and its processes."""
    command = [sys.executable, "-m", "qwick", "serve", model, "--port", "0", "--log-level", "warning", *flags]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL, text=True)
        try:
            yield _address(server, log), Processes(server.pid)
        finally:
            server.terminate()
            if server.wait(120) != 0:
                log.seek(0)
                print(log.read()[-4000:], file=sys.stderr)


def _address(server: "subprocess.Popen[str]", log: Any) -> str:
    deadline = monotonic() + READY_SECONDS
    while True:
        log.seek(0)
        said = log.read()
        if found := re.search(r"is ready: (\S+)/v1", said):
            return found[1]
        if server.poll() is not None or monotonic() > deadline:
            sys.exit(f"the server did not start: {said[-2000:]}")
        sleep(0.1)


def slope(values: Sequence[float]) -> float:
    """Of a line through them by least squares, per place."""
    count = len(values)
    if count < 2:
        return 0.0
    middle, mean = (count - 1) / 2, sum(values) / count
    up = sum((i - middle) * (value - mean) for i, value in enumerate(values))
    return up / sum((i - middle) ** 2 for i in range(count))


def _stat(number: int) -> list[str]:
    """The fields of /proc/N/stat from the third on: a name with blanks cannot shift them."""
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
