"""Sequences that share the engine, in one thread and without HTTP: many answers together, and a prompt that comes in.

    python benchmarks/streams.py MODEL [--only together,entering,pieces] [--limits 2.5:16,4:16]

together  tokens per second of 16 greedy answers, beside what bounds them: a step must read the weights, and read and
          write every sequence's states and keys (bytes, over a read stream of the same minute); and it must do its
          multiply-adds (over what one matrix product with many rows reaches)
entering  the gaps between the tokens of a running answer while a prompt of 4,000 tokens comes in, over its step when it
          is alone; and the prompt's speed over what it has alone. --limits: MOST_DELAY:LEAST_ROWS of engine/pace.py
pieces    what a step takes with one row of an answer and so many of a prompt

Written to --out: NAME.json, NAME.md.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import streams_table  # noqa: E402
from benchmarks.peers.table import machine_slug  # noqa: E402
from benchmarks.published import publish  # noqa: E402

from qwick.bench.cases import Case, StepCost  # noqa: E402
from qwick.bench.limits import best_seconds  # noqa: E402
from qwick.engine import pace  # noqa: E402
from qwick.engine.config import EngineConfig  # noqa: E402
from qwick.engine.engine import Engine  # noqa: E402
from qwick.engine.request import Request  # noqa: E402
from qwick.model.model import open_model  # noqa: E402
from qwick.model.source import open_source  # noqa: E402
from qwick.ops.contract import Role  # noqa: E402
from qwick.ops.native import read_stream  # noqa: E402
from qwick.ops.product import Product  # noqa: E402
from qwick.sampling.params import SamplingParams  # noqa: E402
from qwick.store import find_model  # noqa: E402

STREAM_BYTES = 512 << 20
SIZES = (0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
PARTS = ("together", "entering", "pieces")
Found = dict[str, Any]


class Bench:
    """A model, opened anew for every part."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        with open_source(find_model(options.model)) as source:
            self.model: Any = open_model(source, threads=options.threads, threads_batch=options.threads)
        self.cost = StepCost.of_model(self.model)
        self._random = random.Random(3)

    def engine(self, max_sequences: int, context_len: int) -> Engine:
        return Engine(self.model, EngineConfig(context_len, max_sequences))

    def request(self, num_tokens: int, answer: int) -> Request:
        ids = tuple(self._random.randrange(self.model.config.vocab_size) for _ in range(num_tokens))
        return Request(ids, SamplingParams(temperature=0, max_tokens=answer))

    def stream_rate(self) -> float:
        return read_stream(STREAM_BYTES, self.options.threads, 0.2)

    def product_rate(self, num_rows: int) -> float:
        """Multiply-adds per second of one matrix with so many prompt rows."""
        weight = self.model.weight("layers.0.mlp.gate_proj")
        rows, cols = weight.shape
        product, x = Product(self.model.backend, weight, num_rows), np.ones((num_rows, cols), np.float32)
        return num_rows * rows * cols / best_seconds(lambda: product(x, Role.PROMPT))


def together(bench: Bench) -> Found:
    """Only steps in which all sequences are past their prompts are counted."""
    count, answer = bench.options.streams, bench.options.answer
    engine = bench.engine(count, 512)
    for _ in range(count):
        engine.add(bench.request(32, answer + count))
    while any(sequence.num_cached < sequence.prompt_len for sequence in under_way(engine)) or not under_way(engine):
        engine.step()
    streams, seconds, depths = [bench.stream_rate()], [], []
    for _ in range(answer):
        depths.append(sum(sequence.num_cached for sequence in under_way(engine)) / count)
        seconds.append(step_seconds(engine))
    assert len(under_way(engine)) == count, "an answer ended before all were measured"
    streams.append(bench.stream_rate())
    step, depth = median(seconds), int(median(depths))
    num_bytes = bench.cost.decode_bytes(Case(Role.DECODE, 1, depth, count))
    head = bench.model.config.vocab_size * bench.model.config.hidden_size
    madds = count * (bench.cost.prompt_madds + head)
    products = bench.product_rate(256)
    return {
        "streams": count,
        "step_seconds": step,
        "tokens_per_second": count / step,
        "bytes": num_bytes,
        "weight_bytes": bench.cost.weight_bytes,
        "read_streams": streams,
        "bytes_bound": count / (num_bytes / median(streams)),
        "madds": madds,
        "product_rate": products,
        "madds_bound": count / (madds / products),
    }


def entering(bench: Bench) -> Found:
    """One answer runs; then the prompt comes."""
    options = bench.options
    engine = bench.engine(2, options.prompt + 4096)
    lone = read_alone(bench, engine)
    rows: list[Found] = []
    for delay, least_rows in options.limits:
        pace.MOST_DELAY, pace.LEAST_ROWS = delay, least_rows
        found = enter(bench, bench.engine(2, options.prompt + 4096), lone)
        rows.append({"delay": delay, "least_rows": least_rows} | found)
        print(
            "\n".join(streams_table.entering({"prompt": options.prompt, "lone_rate": lone, "rows": rows[-1:]})),
            flush=True,
        )
    return {"prompt": options.prompt, "lone_rate": lone, "rows": rows}


def read_alone(bench: Bench, engine: Engine) -> float:
    """Tokens per second of the prompt when nothing else runs."""
    engine.add(bench.request(bench.options.prompt, 1))
    begin = perf_counter()
    while engine.has_work:
        engine.step()
    return bench.options.prompt / (perf_counter() - begin)


def enter(bench: Bench, engine: Engine, lone: float) -> Found:
    running = engine.add(bench.request(32, 4000))
    for _ in range(5):
        engine.step()
    alone = median(step_seconds(engine) for _ in range(24))
    coming = engine.add(bench.request(bench.options.prompt, 1))
    begin = last = perf_counter()
    gaps: list[float] = []
    came = False
    while not came:
        events = engine.step()
        now = perf_counter()
        if any(event.sequence_id == running for event in events):
            gaps.append(now - last)
            last = now
        came = any(event.sequence_id == coming for event in events)
    rate = bench.options.prompt / (perf_counter() - begin)
    engine.cancel(running)
    ratios = np.array(gaps) / alone
    return {
        "step_alone": alone,
        "rows_a_step": bench.options.prompt / len(gaps),
        "gap_median": float(np.median(ratios)),
        "gap_p99": float(np.percentile(ratios, 99)),
        "rate": rate,
        "share": rate / lone,
    }


def pieces(bench: Bench) -> Found:
    """Sizes come in a random order, each --repeats times."""
    sizes = [size for size in SIZES for _ in range(bench.options.repeats)]
    random.Random(5).shuffle(sizes)
    engine = bench.engine(2, 8192)
    engine.add(bench.request(32, 4000))
    for _ in range(5):
        engine.step()
    engine.add(bench.request(sum(sizes) + 64, 1))
    engine._pace = fixed = _Fixed()  # noqa: SLF001 - so many rows, whatever they cost
    found: dict[int, list[float]] = {size: [] for size in SIZES}
    for size in sizes:
        fixed.rows = size
        found[size].append(step_seconds(engine))
    return {"step_seconds": {size: median(seconds) for size, seconds in found.items()}}


class _Fixed(pace.Pace):
    def __init__(self) -> None:
        super().__init__(512)
        self.rows = 0

    def long_tokens(self, num_short: int) -> int:
        return self.rows


def step_seconds(engine: Engine) -> float:
    begin = perf_counter()
    engine.step()
    return perf_counter() - begin


def under_way(engine: Engine) -> Sequence[Any]:
    return engine._admission.running  # noqa: SLF001


MEASURE: dict[str, Callable[[Bench], Found]] = {"together": together, "entering": entering, "pieces": pieces}
SHOW: dict[str, Callable[[Found], Iterator[str]]] = {
    "together": streams_table.together,
    "entering": streams_table.entering,
    "pieces": streams_table.pieces,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--only", default="together,entering,pieces", help="with commas between")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--answer", type=int, default=48, help="tokens of each of them that are timed")
    parser.add_argument("--prompt", type=int, default=4000)
    parser.add_argument("--limits", default=f"{pace.MOST_DELAY}:{pace.LEAST_ROWS}", help="with commas between")
    parser.add_argument("--repeats", type=int, default=7, help="of each size of a piece")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "engine" / machine_slug())
    parser.add_argument("--name", default="streams", help="of the files in --out")
    options = parser.parse_args()
    pairs = [pair.split(":") for pair in options.limits.split(",")]
    options.limits = [(float(delay), int(rows)) for delay, rows in pairs]
    bench = Bench(options)
    found = {part: MEASURE[part](bench) for part in options.only.split(",")}
    lines = [line for part, result in found.items() for line in [*SHOW[part](result), ""]]
    publish(options.out, options.name, lines, found)


if __name__ == "__main__":
    main()
