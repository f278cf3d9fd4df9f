"""What a server may be sent to fill its memory, from many connections at once."""

import http.client
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit


def bodies(size: int) -> list[tuple[str, bytes]]:
    """Paths and bodies of about `size` bytes: garbage that is large in memory, and the longest prompts."""
    chat, plain = "/v1/chat/completions", "/v1/completions"
    wide = "\U0001f642" + "a" * (size - 200)
    return [
        (chat, b'{"messages": [' + b"[]," * (size // 3) + b"1]}"),
        (plain, b'{"prompt": [' + b"[]," * (size // 3) + b"1]}"),
        (plain, b'{"prompt": [' + b"300," * (size // 4) + b'1], "max_tokens": 2}'),
        (plain, b'{"prompt": "' + wide.encode() + b'"}'),
        (chat, b'{"messages": [{"role": "user", "content": "' + wide.encode() + b'"}]}'),
        (plain, b'{"prompt": [' + b"300," * 3900 + b'1], "max_tokens": 40, "n": 4, "seed": 1}'),
        (plain, b'{"prompt": "' + b"What is " * 1200 + b'", "max_tokens": 40, "n": 2}'),
        (chat, b"{" + b",".join(b'"x%d":1' % i for i in range(size // 10)) + b"}"),
    ]


def send(url: str, size: int, seconds: float, connections: int) -> Counter[int]:
    """How often which status came; 0: no answer."""
    place, kinds, end = urlsplit(url), bodies(size), time.monotonic() + seconds
    found: Counter[int] = Counter()

    def run(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < end:
            path, body = rng.choice(kinds)
            connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
            try:
                connection.request("POST", path, body, {"content-type": "application/json"})
                found[connection.getresponse().status] += 1
            except OSError:
                found[0] += 1
            finally:
                connection.close()

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(run, range(connections)))
    return found


def peak_bytes(pid: int) -> int:
    """Most that a process has had in memory."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024
