"""The engine on a small hard-random model: an answer depends on its request alone, and memory always comes back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.engine.config import EngineConfig
from qwick.engine.engine import Engine
from qwick.engine.request import Finish, Request
from qwick.errors import CapacityError, UsageError
from qwick.sampling.params import SamplingParams
from tests.engine.asking import CONFIG, answers, prompt
from tests.parity.reference import load_reference, load_tensors

torch.set_num_threads(1)
GREEDY = SamplingParams(temperature=0, max_tokens=12)
EXAMPLES = settings(max_examples=12, deadline=None)


NAMES = ["torch", "native", "q8_0"]


def engine_of(models, name, **limits):
    return Engine(models(name), EngineConfig(**{"context_len": 200, "max_sequences": 3, "step_tokens": 64} | limits))


@pytest.mark.parametrize("name", ["torch", "native"])
def test_greedy_answers_are_transformers_generate(folder, models, name):
    model = load_reference(CONFIG, load_tensors(folder))
    ids = prompt(70)
    known = list(ids)
    for _ in range(12):
        with torch.no_grad():
            known.append(int(model(torch.tensor([known])).logits[0, -1].argmax()))
    assert answers(engine_of(models, name), [Request(ids, GREEDY)]) == [known[70:]]


requests = st.lists(
    st.builds(
        lambda length, seed, sampling: Request(prompt(length, seed), sampling),
        st.integers(1, 90),
        st.integers(0, 50),
        st.sampled_from(
            [
                GREEDY,
                SamplingParams(seed=3, max_tokens=8),
                SamplingParams(seed=9, top_k=0, top_p=1.0, temperature=1.5, max_tokens=5),
                SamplingParams(seed=4, top_k=200, min_p=0.02, max_tokens=1),
                SamplingParams(seed=5, presence_penalty=1.5, repetition_penalty=1.2, max_tokens=8),
                SamplingParams(temperature=0, frequency_penalty=2, logit_bias={7: -math.inf}, max_tokens=9),
            ]
        ),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("name", NAMES)
@EXAMPLES
@given(asked=requests, step_tokens=st.integers(4, 100), max_sequences=st.integers(1, 4))
def test_answers_do_not_depend_on_company_or_budget(models, name, asked, step_tokens, max_sequences):
    together = answers(engine_of(models, name, step_tokens=step_tokens, max_sequences=max_sequences), asked)
    single = engine_of(models, name, max_sequences=1, step_tokens=200)
    assert together == [answers(single, [request])[0] for request in asked]


@pytest.mark.parametrize("name", ["torch", "native"])
@EXAMPLES
@given(data=st.data())
def test_requests_that_come_and_go_leave_the_others_alone(models, name, data):
    """Adding and cancelling at any step: invariants hold after each, and survivors answer as if alone."""
    engine = engine_of(models, name, max_sequences=2, step_tokens=20)
    alive, out, cancelled = {}, {}, set()
    for _ in range(data.draw(st.integers(1, 12), label="rounds")):
        if data.draw(st.booleans(), label="add"):
            request = Request(prompt(data.draw(st.integers(1, 60), label="length"), len(alive)), GREEDY)
            alive[engine.add(request)] = request
        if alive and data.draw(st.integers(0, 3), label="cancel") == 0:
            victim = data.draw(st.sampled_from(sorted(alive)), label="victim")
            engine.cancel(victim)
            engine.cancel(victim)
            cancelled.add(victim)
        for event in engine.step():
            assert event.sequence_id not in cancelled
            out.setdefault(event.sequence_id, []).append(event.token_id)
        engine.check()
    while engine.has_work:
        for event in engine.step():
            out.setdefault(event.sequence_id, []).append(event.token_id)
        engine.check()
    single = engine_of(models, name, max_sequences=1, step_tokens=200)
    for sequence_id, request in alive.items():
        expected = answers(single, [request])[0]
        got = out.get(sequence_id, [])
        assert got == (expected[: len(got)] if sequence_id in cancelled else expected)


def test_penalties_and_bias_change_what_is_chosen(models):
    engine = engine_of(models, "native")
    ids = prompt(30)
    (plain,) = answers(engine, [Request(ids, GREEDY)])

    def ask(**options):
        return answers(engine, [Request(ids, SamplingParams(temperature=0, max_tokens=12, **options))])[0]

    assert ask(logit_bias={plain[0]: -math.inf})[0] != plain[0]
    assert ask(logit_bias={7: 100}) == [7] * 12
    # Tokens held at the same logit: each presence penalty brings the next of them up.
    even = dict.fromkeys(range(12), 100)
    assert len(set(ask(logit_bias=even, presence_penalty=2))) > len(set(ask(logit_bias=even)))
    seen = ask(logit_bias=dict.fromkeys(ids, 50), repetition_penalty=1e6)
    assert not set(seen) & set(ids)


def test_an_answer_ends_at_the_contexts_end(models):
    engine = engine_of(models, "native", context_len=50, max_sequences=1, step_tokens=8)
    engine.add(Request(prompt(40), SamplingParams(temperature=0)))
    events = []
    while engine.has_work:
        events += engine.step()
    assert len(events) == 10
    assert [event.finish for event in events] == [None] * 9 + [Finish.LENGTH]
    assert events[-1].stats.prompt_tokens == 40
    assert events[-1].stats.generated_tokens == 10


def test_max_tokens_and_stop_ids_end_an_answer(models):
    engine = engine_of(models, "native")
    (free,) = answers(engine, [Request(prompt(30), GREEDY)])
    assert len(free) == 12
    at = next(i for i, token in enumerate(free) if token not in free[:i] and i >= 3)
    engine.add(Request(prompt(30), GREEDY.stopping_at({free[at]})))
    events = []
    while engine.has_work:
        events += engine.step()
    assert [event.token_id for event in events] == free[: at + 1]
    assert events[-1].finish is Finish.STOP


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        ((), UsageError, "empty"),
        ((512,), UsageError, "0 to 511"),
        ((-1,), UsageError, "0 to 511"),
        (tuple([1] * 200), CapacityError, "200 tokens; the context is 200"),
    ],
)
def test_what_can_never_run_is_refused_at_once(models, ids, error, words):
    engine = engine_of(models, "native")
    with pytest.raises(error, match=words):
        engine.add(Request(ids, GREEDY))
    assert not engine.has_work


@pytest.mark.parametrize(
    "options",
    [{"logit_bias": {512: 1}}, {"stop_token_ids": {512}}, {"logit_bias": dict.fromkeys(range(512), -math.inf)}],
    ids=["bias", "stop", "all forbidden"],
)
def test_ids_beyond_the_vocabulary_are_refused(models, options):
    with pytest.raises(UsageError, match=r"512|every token"):
        engine_of(models, "native").add(Request((1,), SamplingParams(**options)))


def test_a_context_beyond_the_models_is_refused(models):
    with pytest.raises(CapacityError, match="8,193"):
        engine_of(models, "native", context_len=8193)


@pytest.mark.parametrize(
    "limits",
    [{"context_len": 0}, {"max_sequences": 0}, {"step_tokens": 0}, {"kv_format": "f8"}, {"step_tokens": 2}],
    ids=str,
)
def test_limits_that_make_no_sense_are_refused(models, limits):
    with pytest.raises(UsageError):
        engine_of(models, "native", **limits)


def test_a_step_without_work_does_nothing(models):
    engine = engine_of(models, "native")
    assert engine.step() == []
    engine.check()
