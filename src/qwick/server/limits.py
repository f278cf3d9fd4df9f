"""How much may wait at once: bodies of requests, and tokens of prompts, so that `--memory` holds whatever is sent."""

from dataclasses import dataclass

MIB = 1 << 20
_SHARE = 16  # of a cap: what the queue has of it
_LEAST, _UNCAPPED = 16 * MIB, 2048 * MIB
# Bytes that a byte of a body becomes while it is read (`[],[],` are lists of 64 bytes, one body is read at a time), and
# as long as it waits (ids are numbers of 28 bytes, one emoji makes a text wide); those of a token in both processes.
_READ, _WAITING, _TOKEN = 40, 10, 320


@dataclass(frozen=True, slots=True)
class Limits:
    """queue_bytes   what all of it may take in memory
    body_bytes    of one request
    bodies_bytes  of all requests that are being received or answered
    tokens        of all prompts beside one of the longest
    """

    queue_bytes: int
    body_bytes: int
    bodies_bytes: int
    tokens: int

    @classmethod
    def of(cls, cap: int | None, max_body: int) -> "Limits":
        """`cap`: of memory, for everything; None: there is none, and these are still no more than a machine has."""
        queue = _UNCAPPED if cap is None else max(cap // _SHARE, _LEAST)
        body = min(max_body, queue // 2 // _READ)
        return cls(queue, body, max(queue // 4 // _WAITING, body), queue // 4 // _TOKEN)
