"""Who reads slowly, sends too much, or both."""

import json
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from qwick.server.limits import MIB, Limits
from tests.server.hostile_sending import peak_bytes, send
from tests.server.running import Running, serving
from tests.server.test_operation import FORBIDDEN

CAP = 400 * MIB


def connected(server: Running, path: str, body: Any) -> socket.socket:
    """One that has asked, and whose window is small."""
    host, port = server.url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    lines = (f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(data)}")
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    found.connect((host, int(port)))
    found.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode() + data)
    return found


def test_limits_are_parts_of_the_cap() -> None:
    for cap in (64 * MIB, 400 * MIB, 8 << 30, None):
        limits = Limits.of(cap, 16 * MIB)
        assert 0 < limits.body_bytes <= limits.bodies_bytes <= limits.queue_bytes
        assert limits.body_bytes <= 16 * MIB
        assert limits.tokens > 0
        if cap is not None:
            assert limits.queue_bytes <= max(cap // 16, 16 * MIB)
    assert Limits.of(None, 16 * MIB).body_bytes == 16 * MIB


def test_a_reader_who_takes_nothing_is_left_and_others_go_on(tmp_path: Path) -> None:
    """The answer is many times what sockets hold: log-probabilities of twenty tokens for each of thousands."""
    endless = {"prompt": "What is", "max_tokens": 3500, "stream": True, "logit_bias": FORBIDDEN, "logprobs": 20}
    with serving(tmp_path, "--reader-timeout", "1") as server:
        slow = [connected(server, "/v1/completions", endless) for _ in range(2)]
        body = {"prompt": "What is", "max_tokens": 5, "temperature": 0}
        status, answer, _ = server.ask("/v1/completions", body)
        assert (status, bool(answer["choices"][0]["text"])) == (200, True)
        server.until(lambda: server.log.count('"ended": ') == 2)  # by the system's limit, or by ours
        server.until(lambda: server.metric("qwick_requests_admitted") == 0)
        assert server.metric("qwick_requests_running") == 0
        for each in slow:
            each.close()


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT")
def test_the_listening_socket_gives_up_on_who_takes_nothing(tmp_path: Path) -> None:
    from qwick.server.run import leave_slow_readers, listen

    with listen("127.0.0.1", 0) as bound:
        leave_slow_readers(bound, 1.5)
        with socket.create_connection(bound.getsockname()) as other, bound.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500
            assert other is not None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hostile_load_stays_below_the_cap(tmp_path: Path) -> None:
    with serving(tmp_path, "--memory", str(CAP), "--max-queue", "256", "--cache-memory", "64MiB") as server:
        size = Limits.of(CAP, 16 * MIB).body_bytes
        found = send(server.url, size, seconds=12, connections=48)
        peak = peak_bytes(server.process.pid) + peak_bytes(server.engine_pid())
        assert found[200] + found[400] > 0
        assert found[429] > 0
        assert not any(status >= 500 for status in found), found
        assert peak <= CAP * 1.1
        server.until(lambda: server.metric("qwick_requests_admitted") == 0)
        assert server.metric("qwick_prompt_tokens_held") == 0
        status, _, _ = server.ask("/v1/completions", {"prompt": "What is", "max_tokens": 2})
        assert status == 200


def test_a_body_that_comes_in_pieces_is_refused_with_what_it_is(server: Running) -> None:
    """Without its length in front."""
    host, port = server.url.removeprefix("http://").split(":")
    head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        for _ in range(18):
            client.sendall(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 413"


def test_who_goes_away_while_he_sends_is_no_error(server: Running) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    before = server.metric('qwick_errors_total{kind="disconnected"}')
    with socket.create_connection((host, int(port))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        head = (
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n"
        )
        client.sendall(head.encode() + b"{")
    server.until(lambda: server.metric('qwick_errors_total{kind="disconnected"}') == before + 1)
