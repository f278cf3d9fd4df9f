"""Kept sequences: a prompt that goes on from one reads only what is new, and answers as if it had read everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.engine.config import EngineConfig
from qwick.engine.engine import Engine
from qwick.engine.request import Request
from qwick.errors import UsageError
from qwick.sampling.params import SamplingParams
from tests.engine.asking import answers, prompt

GREEDY = SamplingParams(temperature=0, max_tokens=12)
ALL_LOGITS = SamplingParams(top_k=0, seed=1, max_tokens=6)
EXAMPLES = settings(max_examples=12, deadline=None)
NATIVE = ["native", "q8_0"]


def engine_of(models, name, **limits):
    return Engine(models(name), EngineConfig(**{"context_len": 200, "step_tokens": 64, "kept_sequences": 1} | limits))


def run(engine, request, steps=None):
    """(ids, last stats, [logits of each]) of one request; cancelled after `steps` steps if given."""
    seen, rows = [], []
    forward = engine.model.forward

    def spy(batch):
        result = forward(batch)
        rows.extend(np.copy(result.logits) if result.logits is not None else [])
        return result

    engine.model.forward = spy  # until this request is done
    try:
        sequence_id = engine.add(request)
        while engine.has_work and steps != 0:
            seen += engine.step()
            engine.check()
            steps = None if steps is None else steps - 1
        engine.cancel(sequence_id)
        engine.check()
    finally:
        del engine.model.forward
    return [event.token_id for event in seen], seen[-1].stats if seen else None, rows


@pytest.mark.parametrize("name", NATIVE)
@EXAMPLES
@given(
    first_len=st.integers(1, 120),
    new_len=st.integers(1, 70),
    at=st.floats(0, 1),
    budgets=st.tuples(*[st.integers(1, 200)] * 3),
)
def test_after_a_snapshot_the_logits_are_those_of_a_fresh_reading(models, name, first_len, new_len, at, budgets):
    first, new = prompt(first_len, 1), prompt(new_len, 2)
    snapshot_at = 1 + round(at * (first_len - 1))
    second = Request(first[:snapshot_at] + new, ALL_LOGITS)
    engine = engine_of(models, name, step_tokens=budgets[0])
    run(engine, Request(first, ALL_LOGITS, keep=True, snapshot_at=snapshot_at))
    engine.config = EngineConfig(200, 1, min(budgets[:2]), kept_sequences=1)  # another chunking
    ids, stats, logits = run(engine, second)
    assert stats.cached_tokens == snapshot_at
    assert stats.prompt_tokens == snapshot_at + new_len
    fresh_ids, _, fresh = run(engine_of(models, name, kept_sequences=0, step_tokens=budgets[2]), second)
    assert ids == fresh_ids
    assert len(logits) == ALL_LOGITS.max_tokens
    assert np.array_equal(logits, fresh)


CONVERSATIONS = [prompt(180, seed) for seed in (1, 2, 3)]


@st.composite
def turns(draw):
    """A part of a conversation as a prompt: later ones begin as earlier ones did."""
    length = draw(st.integers(1, 170))
    sampling = draw(
        st.sampled_from([GREEDY, SamplingParams(seed=3, max_tokens=1), SamplingParams(seed=4, max_tokens=9)])
    )
    snapshot_at = draw(st.none() | st.integers(1, length))
    return Request(draw(st.sampled_from(CONVERSATIONS))[:length], sampling, draw(st.booleans()), snapshot_at)


@pytest.mark.parametrize("name", NATIVE)
@EXAMPLES
@given(data=st.data())
def test_whatever_came_before_answers_stay_the_same(models, name, data):
    """Requests of three conversations come, go and are cancelled; each survivor answers as if alone."""
    engine = engine_of(
        models,
        name,
        max_sequences=data.draw(st.integers(1, 3), label="max_sequences"),
        kept_sequences=data.draw(st.integers(1, 3), label="kept_sequences"),
        step_tokens=data.draw(st.integers(3, 100), label="step_tokens"),
    )
    asked, out, cancelled = {}, {}, set()
    for _ in range(data.draw(st.integers(2, 14), label="rounds")):
        if data.draw(st.integers(0, 2), label="add"):
            request = data.draw(turns(), label="turn")
            asked[engine.add(request)] = request
        for _ in range(data.draw(st.integers(0, 20), label="steps")):
            for event in engine.step():
                assert event.sequence_id not in cancelled
                out.setdefault(event.sequence_id, []).append(event.token_id)
            engine.check()
        if asked and data.draw(st.integers(0, 3), label="cancel") == 0:
            victim = data.draw(st.sampled_from(sorted(asked)), label="victim")
            engine.cancel(victim)
            cancelled.add(victim)
            engine.check()
    while engine.has_work:
        for event in engine.step():
            out.setdefault(event.sequence_id, []).append(event.token_id)
        engine.check()
    fresh = engine_of(models, name, kept_sequences=0, step_tokens=200)
    for sequence_id, request in asked.items():
        expected, got = answers(fresh, [request])[0], out.get(sequence_id, [])
        assert got == (expected[: len(got)] if sequence_id in cancelled else expected)


def test_each_turn_reads_only_what_the_turn_before_had_not_seen(models):
    engine, known, at = engine_of(models, "native"), (), 0
    for turn in range(4):
        known = known[:at] + prompt(20, turn)
        at_before, at = at, len(known) - 3
        _, stats, _ = run(engine, Request(known, GREEDY, keep=True, snapshot_at=at))
        assert stats.cached_tokens == at_before


def test_the_same_prompt_again_goes_on_from_the_snapshot(models):
    engine, request = engine_of(models, "native"), Request(prompt(50), GREEDY, keep=True, snapshot_at=47)
    first, _, _ = run(engine, request)
    for _ in range(2):
        again, stats, _ = run(engine, request)
        assert (again, stats.cached_tokens) == (first, 47)


def test_an_answer_is_continued_from_its_end(models):
    engine = engine_of(models, "torch")
    whole, _, _ = run(engine, Request(prompt(30), SamplingParams(temperature=0, max_tokens=24)))
    part, _, _ = run(engine, Request(prompt(30), GREEDY, keep=True, snapshot_at=20))
    rest, stats, _ = run(engine, Request(prompt(30) + tuple(part), GREEDY))
    assert part + rest == whole
    assert stats.cached_tokens == 30 + 12 - 1  # the last id was drawn, not yet read


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_what_a_cancelled_request_had_read_is_kept(models, steps):
    """40 tokens, 8 a step."""
    request = Request(prompt(40), ALL_LOGITS, keep=True, snapshot_at=30)
    expected, _, logits = run(engine_of(models, "native", kept_sequences=0), request)
    engine = engine_of(models, "native", step_tokens=8)
    run(engine, request, steps)
    again, stats, again_logits = run(engine, request)
    assert stats.cached_tokens == 8 * steps
    assert again == expected
    assert np.array_equal(again_logits, logits)


def test_what_a_cancelled_answer_had_generated_is_kept(models):
    """After the prompt's 5 steps each one reads what the one before drew."""
    engine = engine_of(models, "native", step_tokens=8)
    ids, _, _ = run(engine, Request(prompt(40), ALL_LOGITS, keep=True), 8)
    assert len(ids) == 4
    _, stats, _ = run(engine, Request(prompt(40) + tuple(ids), GREEDY))
    assert stats.cached_tokens == 43


def test_a_cancelled_turn_leaves_the_snapshot_of_the_turn_before(models):
    engine = engine_of(models, "native", step_tokens=8)
    run(engine, Request(prompt(40), GREEDY, keep=True, snapshot_at=33))
    run(engine, Request(prompt(33) + prompt(60, 1), GREEDY, keep=True, snapshot_at=90), steps=2)
    _, stats, _ = run(engine, Request(prompt(33) + prompt(20, 2), GREEDY))
    assert stats.cached_tokens == 33


def test_a_stranger_gets_the_memory(models):
    engine = engine_of(models, "native")
    turn = Request(prompt(40), GREEDY, keep=True, snapshot_at=35)
    for stranger in (Request(prompt(150, 5), SamplingParams(max_tokens=40)), Request(prompt(9, 6), GREEDY, keep=True)):
        run(engine, turn)
        ids, stats, _ = run(engine, stranger)
        assert stats.cached_tokens == 0
        assert len(ids) == stranger.sampling.max_tokens
        assert run(engine, turn)[1].cached_tokens == 0


def test_what_nobody_asked_to_keep_is_not_kept(models):
    for limits, keep in (({}, False), ({"kept_sequences": 0}, True)):
        engine = engine_of(models, "native", **limits)
        request = Request(prompt(40), GREEDY, keep=keep, snapshot_at=35)
        run(engine, request)
        assert run(engine, request)[1].cached_tokens == 0


@pytest.mark.parametrize("place", ["forward", "rope"])
def test_a_step_that_fails_ends_its_sequences_and_nothing_else(models, monkeypatch, place):
    """The cache may be ahead then: nothing of it may be gone on from."""
    engine = engine_of(models, "native", step_tokens=8)
    request = Request(prompt(40), GREEDY, keep=True, snapshot_at=35)
    expected, _, _ = run(engine, request)
    model, forward = engine.model, engine.model.forward

    def interrupted(batch):
        forward(batch)
        raise KeyboardInterrupt

    engine.add(request)
    with monkeypatch.context() as patch:
        if place == "forward":
            patch.setattr(model, "forward", interrupted)
            error = KeyboardInterrupt
        else:
            patch.setattr(model, "rope", None)
            error = AttributeError
        with pytest.raises(error):
            engine.step()
    engine.check()
    assert not engine.has_work
    ids, stats, _ = run(engine, request)
    assert (ids, stats.cached_tokens) == (expected, 0)


@pytest.mark.parametrize("snapshot_at", [0, -1, 41])
def test_a_snapshot_lies_in_the_prompt(models, snapshot_at):
    with pytest.raises(UsageError, match="snapshot_at"):
        engine_of(models, "native").add(Request(prompt(40), GREEDY, keep=True, snapshot_at=snapshot_at))


def test_a_negative_number_of_kept_sequences_is_refused():
    with pytest.raises(UsageError, match="kept_sequences"):
        EngineConfig(kept_sequences=-1)
