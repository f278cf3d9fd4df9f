"""A client that costs little: many streams of server-sent events over plain sockets, in one thread.

It looks at the ends of answers only; what is in between it counts and forgets.
"""

import re
import selectors
import socket
from collections.abc import Callable, Iterator
from time import monotonic

PATH = "/v1/chat/completions"
SILENT_SECONDS = 120.0  # an answer of which nothing comes for so long is an error
_END = b"data: [DONE]\n\n"
_USED = re.compile(rb'"completion_tokens":\s*(\d+)')
_TAIL = 2048  # bytes: the finish reason, the counts and [DONE] fit in


class Load:
    """`streams` answers at a time, questions from `bodies`. `every_second` is called so often while it runs."""

    def __init__(
        self,
        address: tuple[str, int],
        bodies: Iterator[bytes],
        streams: int,
        every_second: Callable[[], object] = lambda: None,
    ) -> None:
        self._address, self._bodies, self._streams = address, bodies, streams
        self._every_second = every_second
        self._selector = selectors.DefaultSelector()
        self.num_answers = self.num_tokens = 0
        self.errors: list[str] = []
        self.first_seconds: list[float] = []
        self.gap_seconds: list[float] = []

    def run(self, seconds: float) -> None:
        """New questions for `seconds`, at least one per stream; then until all are answered."""
        deadline = monotonic() + seconds
        next_second = monotonic()
        open_streams = {self._ask() for _ in range(self._streams)}
        while open_streams:
            for key, _ in self._selector.select(0.25):
                if key.data.read():
                    open_streams.remove(key.data)
                    self._end(key.data)
                    if monotonic() < deadline:
                        open_streams.add(self._ask())
            now = monotonic()
            if now >= next_second:
                self._every_second()
                next_second = now + 1
                for stream in [each for each in open_streams if now - each.last > SILENT_SECONDS]:
                    open_streams.remove(stream)
                    self._end(stream)

    def _ask(self) -> "_Stream":
        stream = _Stream(self._address, next(self._bodies))
        self._selector.register(stream.socket, selectors.EVENT_READ, stream)
        return stream

    def _end(self, stream: "_Stream") -> None:
        self._selector.unregister(stream.socket)
        stream.socket.close()
        if (wrong := stream.wrong()) is not None:
            self.errors.append(wrong)
            return
        self.num_answers += 1
        self.num_tokens += stream.num_tokens()
        self.first_seconds.append(stream.first_seconds)
        self.gap_seconds += stream.gaps


class _Stream:
    """One question and what comes back, over a connection of its own."""

    def __init__(self, address: tuple[str, int], body: bytes) -> None:
        self.socket = socket.create_connection(address)
        self.began = self.last = monotonic()
        self.first_seconds = 0.0
        self.gaps: list[float] = []
        self._head, self._tail = b"", b""
        self._is_text = False  # the first piece of text has come
        head = f"POST {PATH} HTTP/1.1\r\nHost: {address[0]}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def read(self) -> bool:
        """What has come; True at the end."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            return True
        now = monotonic()
        if not self._is_text:
            self._head += data
            if b'"content":"' in self._head.replace(b'"content":""', b"", 1):
                self._is_text, self.first_seconds = True, now - self.began
        else:
            self.gaps.append(now - self.last)
        self.last = now
        self._tail = (self._tail + data)[-_TAIL:]
        return False

    def wrong(self) -> str | None:
        """None: a whole answer."""
        if not self._head.startswith(b"HTTP/1.1 200 "):
            return f"no answer: {self._head[:500]!a}"
        tail = self._tail
        if _END not in tail or b'"error":' in tail or b'"finish_reason":"' not in tail or not _USED.search(tail):
            return f"not a whole answer: …{tail[-500:]!a}"
        return None

    def num_tokens(self) -> int:
        """As its own counts say."""
        return int(_USED.findall(self._tail)[-1])
