"""Run as a program: a model under a cap on memory, and requests that want more. Prints what it took, as JSON.

python tests/hostile_load.py CAP_BYTES NUM_REQUESTS
"""

import json
import sys
from pathlib import Path

import numpy as np

from qwick.engine.request import Request
from qwick.model.source import open_source
from qwick.opening import EngineOptions, open_engine
from qwick.sampling.params import SamplingParams
from qwick.store import find_model

MOST_WAITING = 12


def requests(count, vocab, longest):
    """Long and short ones, many that begin alike; drawn from all logits, with penalties and biases, scored."""
    rng = np.random.default_rng(0)
    systems = [rng.integers(1, vocab, 1500).tolist() for _ in range(6)]
    for i in range(count):
        own = rng.integers(1, vocab, int(rng.integers(1, longest - 1600))).tolist()
        ids = (systems[i % 6] if i % 3 else []) + own
        sampling = SamplingParams(
            max_tokens=int(rng.integers(1, 60)),
            temperature=1.0,
            top_k=(0, 20, 1000)[i % 3],
            top_p=0.95,
            repetition_penalty=1.1,
            logit_bias={int(token): 0.5 for token in rng.integers(0, vocab, 300)},
            seed=i,
        )
        boundaries = (1500, len(ids)) if i % 3 else (len(ids),)
        scored_from = max(1, len(ids) - 100) if i % 4 == 0 else None
        yield Request(tuple(ids), sampling, boundaries, (None, 5)[i % 2], scored_from)


def main():
    cap, count = int(sys.argv[1]), int(sys.argv[2])
    options = EngineOptions(threads=2, threads_batch=2, max_sequences=8, cache_memory=1 << 30, memory=cap)
    with open_source(find_model("pocket")) as source:
        engine = open_engine("pocket", source, options)
    asked = requests(count, engine.model.config.vocab_size, engine.config.context_len)
    finished = steps = cancelled = 0
    under_way = []
    while True:
        while len(under_way) < MOST_WAITING and (request := next(asked, None)) is not None:
            under_way.append(engine.add(request))
        if not engine.has_work:
            break
        done = {event.sequence_id for event in engine.step() if event.finish}
        finished += len(done)
        under_way = [i for i in under_way if i not in done]
        steps += 1
        if steps % 50 == 0 and under_way:
            engine.cancel(under_way.pop(len(under_way) // 2))
            cancelled += 1
    engine.check()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    plan, levels = engine.config.memory, engine.levels
    told = {
        "peak": int(status["VmHWM"].split()[0]) * 1024,
        "planned": plan.total,
        "finished": finished,
        "cancelled": cancelled,
        "preemptions": levels.preemptions,
        "forgotten": levels.snapshots_forgotten,
        "pages": levels.pages,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
