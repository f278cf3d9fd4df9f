"""Question (a): 200 native calls against one recorded program, alone and beside a busy Python thread."""

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import replay_module  # pyright: ignore[reportMissingImports]  compiled by run.py beside its other programs

NUM_OPS = 200
SCALES = [0.5 + i / 1000 for i in range(NUM_OPS)]


def per_op() -> None:
    """One native call an op."""
    for scale in SCALES:
        replay_module.call(scale)


@contextmanager
def busy_thread(wanted: bool) -> Iterator[None]:
    """Keeps one pure Python loop running, as a web server's event loop or a tokenizer would."""
    stop = False

    def spin() -> None:
        count = 0
        while not stop:
            count += 1

    thread = threading.Thread(target=spin)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        stop = True
        if wanted:
            thread.join()


def milliseconds(body: Callable[[], None]) -> float:
    """The wall time of one call."""
    start = time.perf_counter()
    body()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    """Checks that both ways compute the same, then times them in turn."""
    for scale in SCALES:
        replay_module.record(scale)
    replay_module.reset()
    per_op()
    expected = replay_module.first_value()
    replay_module.reset()
    replay_module.replay()
    assert replay_module.first_value() == expected, "both ways compute the same"

    for busy, switch_ms in ((False, 5.0), (True, 5.0), (True, 0.5), (True, 0.1)):
        sys.setswitchinterval(switch_ms / 1e3)
        times: dict[str, list[float]] = {"200 calls": [], "one replay": []}
        with busy_thread(busy):
            for _ in range(9 if busy else 51):
                times["200 calls"].append(milliseconds(per_op))
                times["one replay"].append(milliseconds(replay_module.replay))
        place = f"beside a busy Python thread, GIL switch interval {switch_ms} ms" if busy else "alone"
        for name, values in times.items():
            print(
                f"{name:10} {place:60} median {statistics.median(values):8.2f} ms  best {min(values):8.2f} ms"
                f"  (load average {os.getloadavg()[0]:.2f})"
            )


if __name__ == "__main__":
    main()
