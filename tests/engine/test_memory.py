"""What an engine remembers: prompts read only what is new, and answer as if they had read everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.cache.prefix import MissReason
from qwick.engine.config import EngineConfig
from qwick.engine.engine import Engine
from qwick.engine.request import Request
from qwick.errors import CapacityError, UsageError
from qwick.sampling.params import SamplingParams
from tests.engine.asking import answers, prompt

GREEDY = SamplingParams(temperature=0, max_tokens=12)
ALL_LOGITS = SamplingParams(top_k=0, seed=1, max_tokens=6)
EXAMPLES = settings(max_examples=12, deadline=None)
NATIVE = ["native", "q8_0"]


def engine_of(models, name, **limits):
    options = {"context_len": 200, "step_tokens": 64, "cache_memory": 4 << 20} | limits
    return Engine(models(name), EngineConfig(**options))


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


def idle(engine):
    while engine.idle_step():
        engine.check()


@pytest.mark.parametrize("name", NATIVE)
@EXAMPLES
@given(
    first_len=st.integers(8, 120),
    new_len=st.integers(1, 70),
    at=st.floats(0, 1),
    leisurely=st.booleans(),
    budgets=st.tuples(*[st.integers(1, 200)] * 3),
)
def test_after_a_snapshot_the_logits_are_those_of_a_fresh_reading(
    models, name, first_len, new_len, at, leisurely, budgets
):
    first, new = prompt(first_len, 1), prompt(new_len, 2)
    place = 8 + round(at * (first_len - 8))
    second = Request(first[:place] + new, ALL_LOGITS)
    engine = engine_of(models, name, step_tokens=budgets[0])
    if leisurely:
        engine.remember(Request(first[:place], GREEDY))
        idle(engine)
    else:
        run(engine, Request(first, ALL_LOGITS, (place,)))
    engine.config = EngineConfig(200, 1, min(budgets[:2]), cache_memory=1)  # another chunking
    ids, stats, logits = run(engine, second)
    assert stats.cached_tokens == place
    assert stats.prompt_tokens == place + new_len
    fresh_ids, _, fresh = run(engine_of(models, name, cache_memory=0, step_tokens=budgets[2]), second)
    assert ids == fresh_ids
    assert len(logits) == ALL_LOGITS.max_tokens
    assert np.array_equal(logits, fresh)


CONVERSATIONS = [prompt(100, 9) + prompt(80, seed) for seed in (1, 2, 3)]


@st.composite
def turns(draw):
    """A part of a conversation as a prompt: later ones begin as earlier ones did, all three with the same words."""
    length = draw(st.integers(1, 170))
    sampling = draw(
        st.sampled_from([GREEDY, SamplingParams(seed=3, max_tokens=1), SamplingParams(seed=4, max_tokens=9)])
    )
    places = draw(st.sets(st.integers(1, length), max_size=3))
    return Request(draw(st.sampled_from(CONVERSATIONS))[:length], sampling, tuple(sorted(places)))


@pytest.mark.parametrize("name", NATIVE)
@EXAMPLES
@given(data=st.data())
def test_whatever_came_before_answers_stay_the_same(models, name, data):
    """Requests of three conversations come, go, are cancelled, make way; each survivor answers as if alone."""
    max_sequences = data.draw(st.integers(1, 4), label="max_sequences")
    engine = engine_of(
        models,
        name,
        max_sequences=max_sequences,
        num_pages=data.draw(st.integers(4, 4 * max_sequences + 30), label="num_pages"),
        step_tokens=data.draw(st.integers(4, 100), label="step_tokens"),
    )
    asked, out, cancelled = {}, {}, set()
    for _ in range(data.draw(st.integers(2, 14), label="rounds")):
        if data.draw(st.integers(0, 2), label="add"):
            request = data.draw(turns(), label="turn")
            asked[engine.add(request)] = request
        if data.draw(st.integers(0, 3), label="remember") == 0:
            engine.remember(data.draw(turns(), label="history"))
        for _ in range(data.draw(st.integers(0, 20), label="steps")):
            if not engine.has_work:
                engine.idle_step()
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
    fresh = engine_of(models, name, cache_memory=0, step_tokens=200)
    for sequence_id, request in asked.items():
        expected, got = answers(fresh, [request])[0], out.get(sequence_id, [])
        assert got == (expected[: len(got)] if sequence_id in cancelled else expected)


@pytest.mark.parametrize("name", NATIVE)
def test_who_makes_way_for_others_answers_the_same(models, name):
    """Four contexts of 4 pages each in the memory of five pages: the young ones wait and are read again."""
    asked = [Request(prompt(100, seed), SamplingParams(seed=seed, max_tokens=90)) for seed in range(4)]
    engine = engine_of(models, name, max_sequences=4, num_pages=5, cache_memory=0)
    ids = {engine.add(request): i for i, request in enumerate(asked)}
    out, stats, ended = [[] for _ in asked], {}, []
    while engine.has_work:
        for event in engine.step():
            out[ids[event.sequence_id]].append(event.token_id)
            stats[ids[event.sequence_id]] = event.stats
            ended += [ids[event.sequence_id]] if event.finish else []
        engine.check()
    single = engine_of(models, name, cache_memory=0)
    assert out == [answers(single, [request])[0] for request in asked]
    assert ended == [0, 1, 2, 3]
    assert stats[0].preemptions == 0
    assert sum(each.preemptions for each in stats.values()) == engine.levels.preemptions > 0
    assert engine.instruments.reread_tokens > 0


def test_what_can_never_fit_is_refused_at_once(models):
    engine = engine_of(models, "native", num_pages=2, cache_memory=0)
    with pytest.raises(CapacityError, match="3 pages of the cache, which has 2"):
        engine.add(Request(prompt(120), SamplingParams(max_tokens=30)))
    assert answers(engine, [Request(prompt(120), SamplingParams(temperature=0, max_tokens=8))])


def test_each_turn_reads_only_what_the_turn_before_had_not_seen(models):
    engine, known, at = engine_of(models, "native"), (), 0
    for turn in range(4):
        known = known[:at] + prompt(20, turn)
        at_before, at = at, len(known) - 3
        _, stats, _ = run(engine, Request(known, GREEDY, (at,)))
        assert stats.cached_tokens == at_before


def test_after_an_answer_was_read_only_the_question_is_left(models):
    engine, known = engine_of(models, "native", context_len=600), prompt(20)
    for turn in range(4):
        ids, stats, _ = run(engine, Request(known, GREEDY, (len(known),)))
        assert stats.prompt_tokens - stats.cached_tokens == 20
        engine.remember(Request(known + tuple(ids), GREEDY))
        idle(engine)
        known += tuple(ids) + prompt(20, turn)
    assert engine.instruments.idle_tokens == 4 * 12


def test_the_same_prompt_again_goes_on_from_the_snapshot(models):
    engine, request = engine_of(models, "native"), Request(prompt(50), GREEDY, (47,))
    first, _, _ = run(engine, request)
    for _ in range(2):
        again, stats, _ = run(engine, request)
        assert (again, stats.cached_tokens) == (first, 47)


def test_a_changed_question_goes_on_from_the_message_before(models):
    engine = engine_of(models, "native")
    run(engine, Request(prompt(150), GREEDY, (80, 120, 146)))
    _, stats, _ = run(engine, Request(prompt(100) + prompt(40, 3), GREEDY))
    assert stats.cached_tokens == 80
    assert (stats.miss.reason, stats.miss.at) == (MissReason.DIVERGED, 100)


def test_where_prompts_part_there_is_a_snapshot_for_the_third(models):
    """Nobody said where the common words end; the second shows it."""
    common = prompt(100)
    engine = engine_of(models, "native")
    cached = [run(engine, Request(common + prompt(40, seed), GREEDY, (140,)))[1].cached_tokens for seed in range(1, 5)]
    assert cached == [0, 0, 100, 100]


@pytest.mark.parametrize("boundaries", [(100,), ()])
def test_who_begins_alike_at_the_same_time_is_read_once(models, boundaries):
    """The others wait for the first to come to where they part, and then run beside it."""
    common = prompt(100)
    engine = engine_of(models, "native", max_sequences=4, step_tokens=32)
    asked = [Request(common + prompt(30, seed), GREEDY, boundaries) for seed in range(1, 5)]
    together = answers(engine, asked)
    assert engine.instruments.read_tokens == 100 + 4 * 30
    assert engine.instruments.cached_tokens == 3 * 100
    assert together == [answers(engine_of(models, "native"), [request])[0] for request in asked]


def test_a_beginning_that_many_share_is_remembered_though_other_places_follow_it_closely(models):
    system = prompt(100, 1)
    engine = engine_of(models, "q8_0", step_tokens=200)
    for seed in range(3):
        question = prompt(20, 2 + seed)
        request = Request(system + question, GREEDY, (100, 110, 113, 117))
        _, stats, _ = run(engine, request)
        assert stats.cached_tokens == (100 if seed else 0)
    _, stats, _ = run(engine, Request(system + question[:17] + prompt(9, 9), GREEDY))
    assert stats.cached_tokens == 117


def test_many_conversations_over_one_beginning_need_few_slots(models):
    """Twelve conversations of three turns on two slots; the answers are read at once with the next question."""
    system = prompt(90)
    engine = engine_of(models, "native", max_sequences=2, context_len=400, cache_memory=64 << 20)
    known = [system + prompt(12, seed) for seed in range(12)]
    for turn in range(3):
        asked = [Request(ids, GREEDY, (90, len(ids))) for ids in known]
        before = engine.instruments.read_tokens
        replies = answers(engine, asked)
        most = 12 * (12 + 12) + (90 if turn == 0 else 0)
        assert engine.instruments.read_tokens - before <= most
        known = [ids + tuple(reply) + prompt(12, 99 + turn) for ids, reply in zip(known, replies, strict=True)]
    assert engine.levels.snapshots >= 12


@pytest.mark.parametrize("unshared", [0, 4])
def test_however_many_prompts_end_in_one_step_each_is_remembered(models, unshared):
    engine = engine_of(models, "native", max_sequences=8, context_len=100, step_tokens=400)
    asked = [prompt(30, seed) for seed in range(8)]
    place = 30 - unshared
    first = answers(engine, [Request(ids, GREEDY, (place,)) for ids in asked])
    second = [Request(ids[:place] + prompt(9, 9), GREEDY) for ids in asked]
    again = answers(engine, second)
    assert engine.instruments.cached_tokens == 8 * place
    fresh = engine_of(models, "native", cache_memory=0)
    assert first == [answers(fresh, [Request(ids, GREEDY)])[0] for ids in asked]
    assert again == [answers(fresh, [request])[0] for request in second]


def test_nothing_is_remembered_without_memory_for_it(models):
    engine, request = engine_of(models, "native", cache_memory=0), Request(prompt(100), GREEDY, (95,))
    engine.remember(request)
    assert not engine.has_idle_work
    for _ in range(2):
        assert run(engine, request)[1].cached_tokens == 0


def test_a_request_interrupts_the_reading_and_has_what_was_read(models):
    engine = engine_of(models, "native", context_len=2000, cache_memory=8 << 20)
    history = prompt(1500)
    engine.remember(Request(history, GREEDY))
    assert engine.idle_step()
    engine.check()
    request = Request(history + prompt(5, 1), GREEDY)
    assert not engine.idle_step() if engine.add(request) is None else True
    events = []
    while engine.has_work:
        assert not engine.idle_step()
        events += engine.step()
        engine.check()
    assert 0 < events[-1].stats.cached_tokens < 1500
    assert [event.token_id for event in events] == answers(engine_of(models, "native", context_len=2000), [request])[0]
    idle(engine)
    assert not engine.has_idle_work


@pytest.mark.parametrize("place", ["forward", "rope"])
def test_a_step_that_fails_ends_its_sequences_and_nothing_else(models, monkeypatch, place):
    """The cache may be ahead then: nothing of it may be gone on from."""
    engine = engine_of(models, "native", step_tokens=8)
    request = Request(prompt(40), GREEDY, (35,))
    expected, _, _ = run(engine, request)
    model, forward = engine.model, engine.model.forward

    def interrupted(batch):
        forward(batch)
        raise KeyboardInterrupt

    other = Request(prompt(60, 2), GREEDY, (50,))
    engine.add(other)
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
    assert (ids, stats.cached_tokens) == (expected, 35)
    assert run(engine, other)[1].cached_tokens == 0


@pytest.mark.parametrize("place", [0, -1, 41])
def test_a_boundary_lies_in_the_prompt(models, place):
    engine = engine_of(models, "native")
    for ask in (engine.add, engine.remember):
        with pytest.raises(UsageError, match="boundary"):
            ask(Request(prompt(40), GREEDY, (place,)))


@pytest.mark.parametrize("limits", [{"cache_memory": -1}, {"num_pages": 0}], ids=str)
def test_sizes_that_make_no_sense_are_refused(limits):
    with pytest.raises(UsageError, match=next(iter(limits))):
        EngineConfig(**limits)
