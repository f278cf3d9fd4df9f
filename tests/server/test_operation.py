"""What operators count on: keys, limits, a graceful end, and an engine that dies under load."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from qwick import __version__, pocket
from qwick.errors import UsageError
from qwick.server.errors import ApiError
from qwick.server.gate import Allowance
from qwick.server.options import ApiKey, key_of, read_keys
from qwick.text.tokenizer import Tokenizer
from tests.server.running import Running, serving

LONG: Any = {"model": "pocket", "prompt": "What is", "max_tokens": 3000, "temperature": 0}


def endless(client: openai.OpenAI) -> Any:
    """A stream that goes on for long: nothing that ends an answer may come."""
    return client.completions.create(**LONG, stream=True, logit_bias=FORBIDDEN)


FORBIDDEN = {str(token_id): -100 for token_id in Tokenizer.open(pocket.FOLDER).stop_ids}


def test_sixty_four_streams(server: Running) -> None:
    with server.client() as client:

        def answer(i: int) -> str:
            body: Any = {"model": "pocket", "prompt": f"What is {i}", "max_tokens": 12, "temperature": 0}
            return "".join(chunk.choices[0].text for chunk in client.completions.create(**body, stream=True))

        with ThreadPoolExecutor(64) as pool:
            together = list(pool.map(answer, range(64)))
        assert [answer(i) for i in (0, 31, 63)] == [together[i] for i in (0, 31, 63)]
    server.until(lambda: server.metric("qwick_requests_admitted") == 0)


def test_who_goes_away_frees_the_work(server: Running) -> None:
    cancelled = server.metric("qwick_cancelled_requests_total")
    with server.client() as client:
        stream = endless(client)
        next(iter(stream))
        stream.close()
        server.until(lambda: server.metric("qwick_requests_admitted") == 0)
    server.until(lambda: server.metric("qwick_cancelled_requests_total") > cancelled)


def test_routes_of_operators(server: Running) -> None:
    server.ask("/v1/completions", {"prompt": "What", "max_tokens": 1})
    assert server.ask("/health")[:2] == (200, {"status": "ok"})
    assert server.ask("/ready")[:2] == (200, {"status": "ready"})
    assert server.ask("/version")[:2] == (200, {"version": __version__})
    for path in ("/health", "/ready"):
        with urllib.request.urlopen(urllib.request.Request(server.url + path, method="HEAD"), timeout=30) as answer:
            assert (answer.status, answer.read()) == (200, b"")
    status, page, _ = server.ask("/openapi.json")
    assert status == 200
    assert {"/v1/chat/completions", "/v1/completions", "/tokenize"} <= page["paths"].keys()
    for name in ("qwick_time_to_first_token_seconds_count", "qwick_memory_bytes", "qwick_model_load_seconds"):
        server.until(lambda name=name: server.metric(name) > 0)
    for path in ("/", "/v1/nothing"):
        status, answer, _ = server.ask(path)
        assert (status, answer["error"]["type"]) == (404, "invalid_request_error")


def test_bodies_that_are_none(server: Running) -> None:
    path = "/v1/chat/completions"
    for body in (b"{", b"[]", b"\xff", b"[" * 100_000, b'{"messages": 1e999}', b""):
        status, answer, headers = server.ask(path, body)
        assert status == 400, body[:20]
        assert answer["error"]["message"]
        assert headers["x-request-id"]
    status, answer, _ = server.ask(path, b" " * (17 << 20))
    assert (status, answer["error"]["code"]) == (413, "body_too_large")


def test_the_log_has_no_prompts(server: Running) -> None:
    server.ask("/v1/completions", {"prompt": "a secret nobody should read", "max_tokens": 1}, {"x-request-id": "my-id"})
    server.until(lambda: "my-id" in server.log)  # it is written behind the answer
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{") and line.endswith("}")]
    (line,) = [line for line in lines if line.get("id") == "my-id"]
    assert line["prompt_tokens"] > 0
    assert "secret" not in server.log


def test_kill_of_the_engine_under_load(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-concurrent", "4") as server, server.client() as client:
        streams = [iter(endless(client)) for _ in range(4)]
        for stream in streams:
            next(stream)
        os.kill(server.engine_pid(), signal.SIGKILL)
        for stream in streams:
            with pytest.raises(openai.APIError, match="engine"):
                for _ in stream:
                    pass
        assert client.completions.create(**LONG | {"max_tokens": 3}).choices[0].text
        assert server.metric("qwick_engine_starts_total") == 2


def test_keys_and_a_queue_that_is_full(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# who may ask\nsk-all name=all\nsk-one name=one max-concurrent=1 per-minute=2\n")
    with serving(tmp_path, "--api-key", f"@{keys}", "--max-concurrent", "1", "--max-queue", "0") as server:
        assert server.ask("/v1/models")[0] == 401
        assert server.ask("/ready")[0] == 200
        with pytest.raises(openai.AuthenticationError), server.client("sk-wrong") as wrong:
            wrong.models.list()
        with server.client("sk-all") as client, server.client("sk-one") as limited:
            stream = endless(client)
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as refused:
                client.completions.create(**LONG)
            assert refused.value.code == "queue_full"
            assert int(refused.value.response.headers["retry-after"]) >= 1
            stream.close()
            limited.models.list()
            limited.models.list()
            with pytest.raises(openai.RateLimitError) as refused:
                limited.models.list()
            assert refused.value.code == "key_rate"
        assert '"key": "one"' in server.log
        assert "sk-" not in server.log


def test_a_stop_finishes_or_says_that_it_did_not(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain", "0") as server, server.client() as client:
        stream = iter(endless(client))
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="stopped"):
            for _ in stream:
                pass
        assert server.process.wait(60) == 0


def test_a_stop_lets_answers_finish(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.client() as client:
        body: Any = LONG | {"max_tokens": 300}
        stream = iter(client.completions.create(**body, stream=True, logit_bias=FORBIDDEN))
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        *_, last = stream
        assert last.choices[0].finish_reason == "length"
        assert server.process.wait(60) == 0


def test_a_reader_that_reads_nothing_holds_nobody_up(server: Running) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"prompt": "What is", "max_tokens": 3000, "stream": True, "logit_bias": FORBIDDEN}).encode()
    length = f"content-length: {len(body)}"
    lines = ("POST /v1/completions HTTP/1.1", "host: x", "content-type: application/json", length, "")
    head = "".join(f"{line}\r\n" for line in lines)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        slow.connect((host, int(port)))
        slow.sendall(head.encode() + body)
        with server.client() as client:
            assert client.completions.create(**LONG | {"max_tokens": 5}).choices[0].text
    server.until(lambda: server.metric("qwick_requests_admitted") == 0)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--port", "99999"], "listen"),
        (["--log-level", "loud"], "--log-level"),
        (["--max-concurrent", "0"], "--max-concurrent"),
        (["--ssl-keyfile", "x"], "--ssl-certfile"),
        (["--api-key", "@/nowhere"], "--api-key"),
        (["nowhere.gguf"], "nowhere"),
    ],
)
def test_flags_that_cannot_be(arguments: list[str], word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qwick", "serve", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert word in done.stderr


def test_keys_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# comment\nabc name=a per-minute=3 # more\n\nxyz\n")
    keys = read_keys(["k", f"@{file}"])
    assert [(key.name, key.per_minute) for key in keys] == [("key-1", None), ("a", 3), ("key-3", None)]
    assert key_of(keys, "abc") is keys[1]
    assert key_of(keys, "ab") is None
    for wrong in ([""], ["k", "k"], ["k per-minute=0"], ["k limit=3"], ["kéy"]):
        with pytest.raises(UsageError) as error:
            read_keys(wrong)
        assert "abc" not in str(error.value)


def test_a_key_has_so_many_requests_at_a_time() -> None:
    allowance = Allowance(ApiKey.read("k max-concurrent=1", 1))
    allowance.enter()
    with pytest.raises(ApiError) as refused:
        allowance.enter()
    assert (refused.value.status, refused.value.code) == (429, "key_concurrency")
    assert refused.value.retry_after == 1
    allowance.leave()  # who was refused leaves too
    allowance.leave()
    allowance.enter()
