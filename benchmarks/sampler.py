"""What choosing a token costs, over the true vocabulary: penalties, the edits in the head, the draw.

    python benchmarks/sampler.py

Microseconds of CPU a token, medians; `seen` distinct tokens have penalties. The head's figure is the difference between
pairs of replays, with and without edits, of a network that is little more than the head.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the small networks of the tests

from qwick.ops.contract import LogitEdits, Outputs, Result
from qwick.ops.native import NativeBackend
from qwick.sampling.params import SamplingParams
from qwick.sampling.penalties import Penalties
from qwick.sampling.sampler import sample
from tests.ops import small_networks as small

VOCAB, STEPS = 248_320, 300
PARAMS = SamplingParams(temperature=1, top_k=20, top_p=0.95, presence_penalty=1.5, repetition_penalty=1.05, seed=1)


def head() -> Any:
    backend = NativeBackend(1)
    table = small.matrix(backend, "table", VOCAB, 32)
    backend.open_cache(small.cache_shape())

    def network(ops: Any, step: Any) -> Any:
        return Outputs(head=ops.head(small.inputs(backend, ops, step, 32), table, step))

    return backend.compile(network, max_tokens=1)


def median_us(seconds: list[float]) -> float:
    return float(np.median(seconds)) * 1e6


def measure(program: Any, seen: int) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCAB, STEPS + 1).tolist()
    penalties = Penalties(PARAMS, rng.permutation(VOCAB)[:seen].tolist())
    batch = small.make_batch([small.Piece(0, 0, 1)], [0], PARAMS.top_k)
    counting, choosing, plain, more = [], [], [], []
    for position, token in enumerate(tokens):
        begin = time.thread_time()
        penalties.push(token)
        ids, values = penalties.entries()
        edits = LogitEdits(np.array([0, len(ids)], np.int32), ids, values)
        counting.append(time.thread_time() - begin)
        with_edits = replace(batch, edits=edits)
        begin = time.thread_time()
        program.run(batch)
        plain.append(time.thread_time() - begin)
        begin = time.thread_time()
        result: Result = program.run(with_edits)
        more.append(time.thread_time() - begin - plain[-1])
        begin = time.thread_time()
        sample(result, 0, PARAMS, position)
        choosing.append(time.thread_time() - begin)
    head_us = median_us(more)
    total = median_us(counting) + median_us(choosing) + head_us
    print(
        f"seen {seen:>6,}: counting {median_us(counting):5.1f}   edits in the head {head_us:6.1f} "
        f"(head without {median_us(plain):7.1f})   draw {median_us(choosing):6.1f}   together {total:6.1f} us"
    )


if __name__ == "__main__":
    opened = head()
    for count in (100, 1_000, 10_000, 100_000):
        measure(opened, count)
