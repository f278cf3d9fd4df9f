"""Log-probabilities of drawn tokens and of a prompt's own: the same bits however they were come by."""

import math

import pytest

from qwick.engine.config import EngineConfig
from qwick.engine.engine import Engine
from qwick.engine.request import Request
from qwick.engine.wanted import SCORED_ROWS
from qwick.errors import UsageError
from qwick.sampling.params import SamplingParams
from tests.engine.asking import answers, prompt

GREEDY = SamplingParams(temperature=0, max_tokens=1)


def run(model, requests, **config):
    """The events of each request."""
    engine = Engine(model, EngineConfig(**({"context_len": 256, "max_sequences": 4} | config)))
    ids = {engine.add(request): i for i, request in enumerate(requests)}
    events = [[] for _ in requests]
    while engine.has_work:
        for event in engine.step():
            events[ids[event.sequence_id]].append(event)
        engine.check()
    return events


def scores(model, request, **config):
    """Of the prompt's tokens."""
    return run(model, [request], **config)[0][0].prompt_scored


@pytest.fixture
def model(models):
    return models("q8_0")


def test_a_prompt_s_token_scores_as_it_would_if_drawn_there(model):
    ids = prompt(40)
    found = scores(model, Request(ids, GREEDY, top_logprobs=5, prompt_logprobs_from=1))
    assert len(found) == len(ids) - 1
    drawn = run(model, [Request(ids[:n], GREEDY, top_logprobs=20) for n in range(1, len(ids))])
    for token_id, (logprob, top), (event,) in zip(ids[1:], found, drawn, strict=True):
        there, top_there = event.scored
        assert top == top_there[:5]
        assert there == top_there[0][1] == dict(top_there)[event.token_id]
        assert dict(top_there).get(token_id, logprob) == logprob <= top[0][1]


def test_the_whole_vocabulary_s_probabilities_make_one(model):
    begin, size = prompt(7), model.config.vocab_size
    requests = [Request((*begin, i), GREEDY, prompt_logprobs_from=len(begin)) for i in range(size)]
    found = [events[0].prompt_scored for events in run(model, requests, max_sequences=32)]
    assert all(top == () for ((_, top),) in found)
    assert sum(math.exp(logprob) for ((logprob, _),) in found) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("begin", [1, 2, 17, 60, 69, 70])
def test_only_what_was_asked_for_is_told(model, begin):
    ids = prompt(70)
    whole = scores(model, Request(ids, GREEDY, prompt_logprobs_from=1))
    assert scores(model, Request(ids, GREEDY, prompt_logprobs_from=begin)) == whole[begin - 1 :]


def test_neither_steps_nor_neighbours_nor_memory_change_a_bit(model):
    request = Request(prompt(90), GREEDY, (90,), top_logprobs=3, prompt_logprobs_from=50)
    alone = scores(model, request)
    assert len(alone) == 40 > SCORED_ROWS
    others = [Request(prompt(30, seed), SamplingParams(seed=seed, max_tokens=20)) for seed in range(3)]
    for step_tokens in (7, 64):
        together = run(model, [*others, request, request], step_tokens=step_tokens, max_sequences=5)
        assert [events[0].prompt_scored for events in together[3:]] == [alone, alone]
    engine = Engine(model, EngineConfig(256, 2, cache_memory=64 << 20))
    for _ in range(3):  # the second and third find the prompt's beginning remembered
        engine.add(request)
        (event,) = [event for _ in range(10) for event in engine.step()]
        engine.check()
        assert event.prompt_scored == alone


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 1, "top_k": 20},
        {"top_k": 0, "top_p": 0.9},
        {"presence_penalty": 1.5, "frequency_penalty": 0.7, "logit_bias": {5: 3.0, 7: -math.inf}},
        {"temperature": 0, "repetition_penalty": 1.3, "presence_penalty": -0.5},
    ],
)
def test_asking_for_them_changes_no_answer(model, sampling):
    params = [SamplingParams(seed=seed, max_tokens=25, **sampling) for seed in range(3)]
    plain = [Request(prompt(20, seed), p) for seed, p in enumerate(params)]
    asked = [Request(prompt(20, seed), p, top_logprobs=seed, prompt_logprobs_from=5) for seed, p in enumerate(params)]
    config = EngineConfig(256, 4)
    wanted = answers(Engine(model, config), plain)
    assert answers(Engine(model, config), asked) == wanted
    mixed = answers(Engine(model, config), [plain[0], asked[1], plain[2]])
    assert mixed == wanted


def test_scores_are_of_the_model_not_of_penalties(model):
    plain = SamplingParams(temperature=0, max_tokens=1)
    (first,) = run(model, [Request(prompt(20), plain, top_logprobs=5)])[0]
    forbidden = SamplingParams(temperature=0, max_tokens=1, logit_bias={first.token_id: -math.inf})
    (second,) = run(model, [Request(prompt(20), forbidden, top_logprobs=5)])[0]
    assert second.scored[1] == first.scored[1]
    assert second.token_id == first.scored[1][1][0]
    assert second.scored[0] == first.scored[1][1][1]


def test_without_asking_nothing_is_told(model):
    for event in run(model, [Request(prompt(5), SamplingParams(max_tokens=3, seed=1))])[0]:
        assert event.scored is event.prompt_scored is None


@pytest.mark.parametrize(
    "asked", [{"top_logprobs": -1}, {"top_logprobs": 21}, {"prompt_logprobs_from": 0}, {"prompt_logprobs_from": 6}]
)
def test_what_makes_no_sense_is_refused(model, asked):
    engine = Engine(model, EngineConfig(256))
    with pytest.raises(UsageError, match=next(iter(asked))):
        engine.add(Request(prompt(5), GREEDY, **asked))
