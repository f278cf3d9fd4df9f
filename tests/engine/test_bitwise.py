"""A request's logits are the same bits whatever else happens: the promise of the whole engine, on each ISA.

Alone or beside others that come, go and are cancelled; its prompt in any pieces, read anew or gone on from what was
remembered, at leisure or beside somebody; after making way for others; on any number of threads.
"""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.engine.config import EngineConfig
from qwick.engine.engine import Engine
from qwick.engine.request import Request
from qwick.formats import F32, Q4_0
from qwick.model.model import open_model
from qwick.sampling.params import SamplingParams
from tests.engine.asking import prompt
from tests.instruction_sets import ISAS

EXAMPLES = settings(max_examples=12, deadline=None)
MOST_THREADS = 3
MOST_STEPS = 2000  # seen in 800 examples: 121
COMMON = prompt(70, 9)
# Three prompts that part inside a page, one that is the beginning of another, one of its own.
PROMPTS = [COMMON + prompt(30, 1), COMMON + prompt(75, 2), COMMON + prompt(9, 3), COMMON[:50], prompt(40, 4)]
REQUESTS = [
    Request(ids, SamplingParams(top_k=0, seed=seed, max_tokens=4 + seed % 5), (min(len(ids), 66), len(ids)))
    for seed, ids in enumerate(PROMPTS)
]


@pytest.fixture(scope="module")
def models(folder):
    return cache(lambda isa, format, threads: open_model(folder, format=format, isa=isa, threads=threads))


@pytest.fixture(scope="module")
def alone(models):
    """(isa, format) -> of each request the logits behind each of its tokens, alone, on one thread, all read anew."""

    @cache
    def make(isa, format):
        found = []
        for request in REQUESTS:
            watched = Watched(models(isa, format, 1), EngineConfig(200, step_tokens=200))
            found.append(watched.logits_of(watched.engine.add(request)))
        return found

    return make


class Watched:
    """An engine, and the logits of every token that it has drawn."""

    def __init__(self, model, config):
        self.engine = Engine(model, config)
        self.rows = {}
        self.steps = 0
        sample = self.engine._sample

        def watch(planned, result):
            drawn = sample(planned, result)
            for row, sequence_id in enumerate(drawn):
                self.rows.setdefault(sequence_id, []).append(result.logits[row].copy())
            return drawn

        self.engine._sample = watch

    def step(self):
        self.steps += 1
        assert self.steps < MOST_STEPS, "the engine has work and gets nowhere"
        if self.engine.has_work:
            self.engine.step()
        else:
            self.engine.idle_step()
        self.engine.check()

    def logits_of(self, sequence_id):
        while self.engine.has_work:
            self.step()
        return np.array(self.rows[sequence_id])


@pytest.mark.parametrize("format", [F32, Q4_0], ids=lambda format: format.name)
@pytest.mark.parametrize("isa", ISAS)
@EXAMPLES
@given(data=st.data())
def test_logits_depend_on_the_request_alone(models, alone, isa, format, data):
    config = EngineConfig(
        context_len=200,
        max_sequences=data.draw(st.integers(1, 4), label="max_sequences"),
        step_tokens=data.draw(st.integers(4, 120), label="step_tokens"),
        cache_memory=data.draw(st.sampled_from([0, 8 << 20]), label="cache_memory"),
        num_pages=data.draw(st.integers(4, 24), label="num_pages"),
    )
    threads = data.draw(st.integers(1, MOST_THREADS), label="threads")
    watched, asked = Watched(models(isa, format, threads), config), {}
    for _ in range(data.draw(st.integers(3, 12), label="rounds")):
        which = data.draw(st.integers(0, len(REQUESTS) - 1), label="which")
        match data.draw(st.sampled_from(["ask", "ask", "remember", "cancel"]), label="what"):
            case "ask":
                asked[watched.engine.add(REQUESTS[which])] = which
            case "remember":
                watched.engine.remember(REQUESTS[which])
            case _ if asked:
                watched.engine.cancel(data.draw(st.sampled_from(sorted(asked)), label="victim"))
        for _ in range(data.draw(st.integers(0, 9), label="steps")):
            watched.step()
    while watched.engine.has_work:
        watched.step()
    for sequence_id, rows in watched.rows.items():
        expected = alone(isa, format)[asked[sequence_id]]
        assert np.array_equal(np.array(rows).view(np.uint32), expected[: len(rows)].view(np.uint32))
