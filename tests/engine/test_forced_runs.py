"""Runs of forced tokens: the bits of one by one on each ISA, and counted as the rows they are."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from qwick.engine.config import EngineConfig
from qwick.engine.constraint import Grammar
from qwick.engine.engine import Engine
from qwick.engine.request import MOST_FORCED_ROWS, Request
from qwick.formats import F32, Q4_0
from qwick.model.model import open_model
from tests.engine.asking import prompt
from tests.engine.test_guidance import GREEDY, MadeUp, Rules
from tests.instruction_sets import ISAS


@pytest.fixture(scope="module")
def opened(folder):
    return cache(lambda isa, format: open_model(folder, format=format, isa=isa, threads=2))


def logits_of(model, request, **limits):
    """By place, those from which a token was drawn or in whose place one was forced; and the tokens."""
    engine, found, tokens = Engine(model, EngineConfig(200, **limits), constraints=MadeUp()), {}, []
    sample = engine._sample

    def watch(planned, result):
        for row, run in enumerate(run for run in planned if run.is_last):
            found[len(run.sequence.token_ids)] = result.logits[row].copy()
        return sample(planned, result)

    engine._sample = watch
    engine.add(request)
    while engine.has_work:
        tokens += [event.token_id for event in engine.step()]
    return found, tokens, engine.instruments.steps


@pytest.mark.parametrize("format", [F32, Q4_0], ids=lambda format: format.name)
@pytest.mark.parametrize("isa", ISAS)
def test_logits_behind_a_run_are_those_behind_the_same_tokens_one_by_one(opened, isa, format):
    """Where tokens are to be scored each takes a step of its own. Steps of few rows cut runs in pieces, too."""
    model = opened(isa, format)
    for name in ("g3 18", "g5 19", "g7 19"):
        request = Request(prompt(30), replace(GREEDY, max_tokens=20), grammar=Grammar("lark", name))
        plain, tokens, steps = logits_of(model, request)
        single, same, more_steps = logits_of(model, replace(request, top_logprobs=0))
        pieces, again, _ = logits_of(model, request, step_tokens=4)
        assert tokens == same == again
        assert steps < more_steps
        assert set(plain) < set(single)
        for other in (single, pieces):
            assert all(
                np.array_equal(logits.view(np.uint32), other[at].view(np.uint32)) for at, logits in plain.items()
            )


class Long(Rules):
    """Nothing but forced tokens: a few, then very many."""

    def forced(self):
        at = len(self.tokens)
        return [7] * {0: 5, 6: MOST_FORCED_ROWS + 9}.get(at, 0) if at < 60 else [500]

    def allowed(self):
        return np.arange(512) == 3


def test_a_run_counts_as_its_rows_and_a_long_one_as_nothing_that_is_known(opened, monkeypatch):
    """Of the pace: what is asked for is what is learned, and rows of answers are not taken for those of prompts."""
    monkeypatch.setattr("tests.engine.test_guidance.Rules", Long)
    engine = Engine(opened(ISAS[0], F32), EngineConfig(200, 2), constraints=MadeUp())
    noted, asked = [], []
    monkeypatch.setattr(engine._pace, "note", lambda short, long, _: noted.append((short, long)))
    monkeypatch.setattr(engine._pace, "long_tokens", lambda short: asked.append(short) or 64)
    engine.add(Request(prompt(20), replace(GREEDY, max_tokens=70), grammar=Grammar("lark", "x 60")))
    while engine.has_work:
        engine.step()
    # The prompt with a token drawn and those that were forced before it; single ones; the long run; the rest.
    rows = sorted({short for short, _ in noted})
    assert max(rows) > 1
    assert max(rows) <= MOST_FORCED_ROWS
    assert {long for short, long in noted if short} == {0}
    assert [long for short, long in noted if not short] == [20]
    assert len(asked) == len(noted) + 1  # of the long run nothing is learned
    assert [short for short in asked if short] == [short for short, _ in noted if short]
