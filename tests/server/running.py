"""A server in a process of its own, as people run it, and the official client for it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import openai

WAIT_SECONDS = 120.0


class Running:
    """`lines`: what it said on standard error until it was ready."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process, self._log = process, log
        self.url = self._wait_for(r"is ready: (\S+)/v1")

    @property
    def log(self) -> str:
        return self._log.read_text()

    def client(self, key: str = "none", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, **options})

    def ask(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any, Any]:
        """Status, what was said (JSON where it is), headers; POST where there is a body."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data, sent)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, _read(answer), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _read(error), error.headers

    def metric(self, name: str) -> float:
        """The sum of a metric's series, or one of them: `name{label="value"}`."""
        _, text, _ = self.ask("/metrics")
        found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def until(self, holds: Any) -> None:
        """Wait for what must come."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds():
            assert time.monotonic() < deadline, self.log
            assert self.process.poll() is None, self.log
            time.sleep(0.05)

    def engine_pid(self) -> int:
        """Of its child; not of the one that renders templates."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                _, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(parent) == self.process.pid and b"engine_child" in (folder / "cmdline").read_bytes():
                    return int(folder.name)
        raise AssertionError("the server has no engine")

    def _wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := re.search(pattern, self.log)):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)
        return found[1]


def _read(answer: Any) -> Any:
    text = answer.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def serving(
    folder: Path, *arguments: str, model: str = "pocket", module: str = "qwick", **variables: str
) -> Iterator[Running]:
    """`qwick serve` on any free port; ended at the end, and its exit checked.

    `module`: what is run as `qwick`; `variables`: of its environment.
    """
    log = folder / "server.log"
    command = [sys.executable, "-m", module, "serve", model, "--port", "0", "--threads", "1", *arguments]
    environment = os.environ | {"NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | variables
    with log.open("w") as output:
        process = subprocess.Popen(command, stderr=output, stdout=subprocess.DEVNULL, env=environment, text=True)
        try:
            yield Running(process, log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
