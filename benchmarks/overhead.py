"""What is not arithmetic in a decode step: Python and the binding, and the barriers of the replay.

    python benchmarks/overhead.py

First, step time less the replay's own time in C++. A network of some 13 M random parameters, so that a replay lasts
milliseconds: long enough for a busy thread to take the GIL, short enough for many steps. Figures in ms: median, 95th
percentile and the share of steps above 0.5 ms.
Then, in us, what a parallel section costs beyond its work; with one thread more than cores, one is always descheduled.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkpoint maker of the tests

from qwick import _kernels
from qwick.engine.config import EngineConfig
from qwick.engine.engine import Engine
from qwick.engine.request import Request
from qwick.model.model import open_model
from qwick.ops.native import default_threads
from qwick.sampling.params import SamplingParams
from tests.checkpoints import small_config, write_checkpoint

STEPS, SECTIONS = 600, 20_000


def overheads(engine: Engine, program: Any) -> np.ndarray:
    """[steps], ms: wall clock of engine.step() less the replay's, for one sequence of greedy decoding."""
    engine.add(Request((1, 2, 3), SamplingParams(temperature=0, max_tokens=STEPS)))
    found: list[float] = []
    while engine.has_work:
        begin = time.perf_counter()
        engine.step()
        found.append(time.perf_counter() - begin - program.replay_seconds)
    return np.array(found[1:]) * 1e3  # the first is the prompt


def beside_a_busy_thread(engine: Engine, program: Any) -> np.ndarray:
    stop = threading.Event()

    def spin() -> None:
        x = 0
        while not stop.is_set():
            x += 1

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        return overheads(engine, program)
    finally:
        stop.set()
        thread.join()


def show_sections() -> None:
    threads = default_threads()[0]
    for count in (threads, threads + 1):
        us = np.array(_kernels.section_costs(count, SECTIONS)) * 1e6
        print(
            f"a section of {count} threads      median {np.median(us):.2f} us   p95 {np.percentile(us, 95):.1f} us   "
            f"p99 {np.percentile(us, 99):.1f} us"
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = small_config(hidden_size=1024, intermediate_size=3584)
        model = open_model(write_checkpoint(Path(folder), config, seed=0), threads=1)
    engine = Engine(model, EngineConfig(context_len=1024))
    program = model.program("forward")
    for name, measure in {"alone": overheads, "beside a busy Python thread": beside_a_busy_thread}.items():
        ms = measure(engine, program)
        print(
            f"{name:<28} median {np.median(ms):.3f} ms   p95 {np.percentile(ms, 95):.3f} ms   "
            f"above 0.5 ms: {np.mean(ms > 0.5):.1%}   (replay {program.replay_seconds * 1e3:.1f} ms)"
        )
    show_sections()


if __name__ == "__main__":
    main()
