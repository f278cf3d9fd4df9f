"""Sixteen answers under way and more that wait: the engine dies, or the server is told to stop. All are told."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qwick import pocket
from qwick.text.tokenizer import Tokenizer
from tests.server.running import Running, serving

RUNNING, WAITING = 16, 8
ENDLESS = {str(token_id): -100 for token_id in Tokenizer.open(pocket.FOLDER).stop_ids}
DONE = "data: [DONE]"


class Ending:
    """How one question was answered. A response that is cut off raises http.client.IncompleteRead."""

    def __init__(self, url: str, index: int, *, streamed: bool, max_tokens: int) -> None:
        body = {"prompt": f"What is {index}", "max_tokens": max_tokens, "temperature": 0, "logit_bias": ENDLESS}
        connection = HTTPConnection(urlsplit(url).netloc, timeout=120)
        data = json.dumps(body | {"stream": streamed})
        connection.request("POST", "/v1/completions", data, {"content-type": "application/json"})
        response = connection.getresponse()
        self.status, text = response.status, response.read().decode()
        connection.close()
        lines = [line for line in text.splitlines() if line] if response.headers["content-type"][:4] == "text" else []
        self.is_whole = not lines or lines[-1] == DONE
        found = (
            [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")] if lines else []
        )
        self.last: Any = found[-1] if lines else json.loads(text)

    @property
    def how(self) -> str:
        """`finish_reason` or the error's code."""
        if "error" in self.last:
            return self.last["error"]["code"]
        return self.last["choices"][0]["finish_reason"]


@contextmanager
def loaded(server: Running) -> Iterator[tuple[Sequence["Future[Ending]"], Sequence["Future[Ending]"]]]:
    """Answers under way that would go on for long, and others behind them; half of each is streamed."""
    with ThreadPoolExecutor(RUNNING + WAITING) as pool:

        def ask(index: int, max_tokens: int) -> "Future[Ending]":
            return pool.submit(Ending, server.url, index, streamed=index % 2 == 0, max_tokens=max_tokens)

        running = [ask(index, 3500) for index in range(RUNNING)]
        server.until(lambda: server.metric("qwick_requests_running") == RUNNING)
        waiting = [ask(index, 5) for index in range(WAITING)]
        server.until(lambda: server.metric("qwick_requests_admitted") == RUNNING + WAITING)
        yield running, waiting


def until_nobody_is_there(server: Running) -> None:
    for name in ("admitted", "waiting", "running"):
        server.until(lambda name=name: server.metric(f"qwick_requests_{name}") == 0)


def test_a_kill_of_the_engine(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-concurrent", str(RUNNING), "--max-queue", str(WAITING)) as server:
        with loaded(server) as (running, waiting):
            os.kill(server.engine_pid(), signal.SIGKILL)
            failed = [ending.result() for ending in running]
            went_on = [ending.result() for ending in waiting]
        assert all(ending.is_whole for ending in (*failed, *went_on))
        assert {ending.how for ending in failed} == {"engine_failed"}
        assert {ending.status for ending in failed} == {200, 503}  # streams that had begun, and whole answers
        assert all("started anew" in ending.last["error"]["message"] for ending in failed)
        assert {(ending.status, ending.how) for ending in went_on} == {(200, "length")}
        until_nobody_is_there(server)
        assert server.metric("qwick_engine_starts_total") == 2
        assert server.metric("qwick_errors_total") == RUNNING
        with loaded(server) as (running, waiting):  # as many places as before
            os.kill(server.engine_pid(), signal.SIGKILL)
        until_nobody_is_there(server)


def test_a_stop(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-concurrent", str(RUNNING), "--drain", "1") as server:
        with loaded(server) as (running, waiting):
            server.process.send_signal(signal.SIGTERM)
        endings = [ending.result() for ending in (*running, *waiting)]
        assert server.process.wait(60) == 0
        assert all(ending.is_whole for ending in endings)
        counts = Counter((ending.status, ending.how) for ending in endings)
        assert counts.keys() <= {(200, "length"), (200, "stopping"), (503, "stopping")}
        assert counts[200, "stopping"] > 0
        assert counts[503, "stopping"] > 0
        assert server.log.count('"error": "stopping"') == counts[200, "stopping"] + counts[503, "stopping"]


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-concurrent", str(RUNNING), "--drain", "600") as server, loaded(server):
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: _refuses(server))
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)


def _refuses(server: Running) -> bool:
    try:
        return server.ask("/ready")[0] == 503
    except OSError:
        return True
