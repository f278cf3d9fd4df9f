"""What a hostile input may cost. Both measure also a block that raises, as it should."""

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 2.0


@contextmanager
def in_time(seconds: float = SECONDS) -> Iterator[None]:
    """Fail when the block took more CPU time of this thread. Not wall time: the machines are shared."""
    before = time.thread_time()
    try:
        yield
    finally:
        spent = time.thread_time() - before
        assert spent <= seconds, f"{spent:.1f} s of CPU"


@contextmanager
def in_memory(max_bytes: int) -> Iterator[None]:
    """Fail when the block held more than `max_bytes` more than before at any time. Tracing makes it much slower."""
    tracemalloc.start()
    try:
        yield
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= max_bytes, f"{peak:,} bytes at once"
