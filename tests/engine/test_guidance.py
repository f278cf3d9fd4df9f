"""Answers that are held to a grammar, on a small hard-random model and grammars of a few lines, without any text."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.engine import repetition
from qwick.engine.config import EngineConfig
from qwick.engine.constraint import ConstraintError, Grammar
from qwick.engine.engine import Engine
from qwick.engine.guidance import Cut, Thought, ThoughtEnd
from qwick.engine.request import Finish, Request
from qwick.errors import UsageError
from qwick.sampling.params import SamplingParams
from tests.engine.asking import answers, prompt

torch.set_num_threads(1)
VOCAB, STOP = 512, 500
EXAMPLES = settings(max_examples=12, deadline=None)
GREEDY = SamplingParams(temperature=0, max_tokens=20, stop_token_ids=frozenset({STOP}))
SAMPLINGS = [
    GREEDY,
    replace(GREEDY, temperature=1.0, seed=3),
    replace(GREEDY, temperature=1.5, top_k=0, top_p=0.9, seed=4),
    replace(GREEDY, temperature=1.0, top_k=200, min_p=0.01, presence_penalty=1.0, repetition_penalty=1.2, seed=5),
]


class Rules:
    """A made-up grammar: what may follow depends on a hash of the tokens so far. It ends after `length` tokens."""

    loose = ""

    def __init__(self, name, length, fails_at=None):
        self.name, self.length, self.fails_at, self.tokens = name, length, fails_at, []

    def _rng(self):
        told = f"{self.name} {self.tokens}".encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(told).digest()[:8], "little"))

    @property
    def is_over(self):
        return bool(self.tokens) and self.tokens[-1] == STOP

    def forced(self):
        if len(self.tokens) >= self.length:
            return [STOP]
        rng = self._rng()
        count = min(int(rng.integers(1, 6)), self.length - len(self.tokens)) if rng.random() < 0.3 else 0
        return rng.integers(0, STOP, count).tolist()

    def allowed(self):
        rng = self._rng()
        mask = rng.random(VOCAB) < rng.choice([0.005, 0.1, 0.9])
        mask[rng.integers(0, STOP)] = True
        mask[STOP] = len(self.tokens) % 4 == 3
        return mask

    def accept(self, token_id):
        self.tokens.append(token_id)
        if len(self.tokens) == self.fails_at:
            raise ConstraintError("too complex")


class MadeUp:
    """Grammars whose text is a name, the length, and the place where they fail."""

    def start(self, grammar):
        if grammar.text == "bad":
            raise UsageError("the lark is bad")
        name, length, *fails_at = grammar.text.split()
        return Rules(name, int(length), *map(int, fails_at))


def engine_of(models, name="native", **limits):
    config = EngineConfig(**{"context_len": 200, "max_sequences": 3, "step_tokens": 64} | limits)
    return Engine(models(name), config, constraints=MadeUp())


def follows(tokens, text):
    """Whether a whole or cut answer is one of the grammar."""
    rules = MadeUp().start(Grammar("lark", text))
    ahead = []
    for token in tokens:
        ahead = ahead or rules.forced()
        if ahead:
            assert token == ahead.pop(0)
        else:
            assert rules.allowed()[token]
        rules.accept(token)
    return rules.is_over


grammars = st.builds(lambda name, length: f"g{name} {length}", st.integers(0, 9), st.integers(1, 25))
constrained = st.builds(
    lambda length, seed, sampling, text: Request(prompt(length, seed), sampling, grammar=Grammar("lark", text)),
    st.integers(1, 70),
    st.integers(0, 50),
    st.sampled_from(SAMPLINGS),
    grammars,
)
free = st.builds(
    lambda length, seed, sampling: Request(prompt(length, seed), sampling, top_logprobs=3),
    st.integers(1, 70),
    st.integers(0, 50),
    st.sampled_from(SAMPLINGS),
)


def scored_answers(engine, requests):
    """Tokens and, bit by bit, what was scored of them, by request."""
    ids = {engine.add(request): i for i, request in enumerate(requests)}
    out = [[] for _ in requests]
    while engine.has_work:
        for event in engine.step():
            out[ids[event.sequence_id]].append((event.token_id, event.scored))
        engine.check()
    return out


@pytest.mark.parametrize("name", ["torch", "native", "q8_0"])
@EXAMPLES
@given(
    asked=st.lists(st.one_of(constrained, free), min_size=1, max_size=5),
    step_tokens=st.integers(4, 100),
    max_sequences=st.integers(1, 4),
    num_pages=st.sampled_from([None, 4, 6]),
)
def test_an_answer_follows_its_grammar_and_does_not_depend_on_company(
    models, name, asked, step_tokens, max_sequences, num_pages
):
    """Free neighbours have the same bits too; with few pages sequences make way for others and are read again."""
    limits = {"step_tokens": step_tokens, "max_sequences": max_sequences, "num_pages": num_pages}
    together = scored_answers(engine_of(models, name, **limits), asked)
    single = engine_of(models, name, max_sequences=1, step_tokens=200)
    assert together == [scored_answers(single, [request])[0] for request in asked]
    for request, answer in zip(asked, together, strict=True):
        tokens = [token for token, _ in answer]
        if request.grammar is not None:
            assert follows(tokens, request.grammar.text) == (tokens[-1] == STOP)


@pytest.mark.parametrize("name", ["torch", "native", "q8_0"])
@EXAMPLES
@given(asked=st.lists(constrained, min_size=1, max_size=4))
def test_forced_tokens_as_a_run_are_the_same_answer_as_one_by_one(models, name, asked):
    """Where tokens are to be scored each has a step of its own."""
    one_by_one = [replace(request, top_logprobs=0) for request in asked]
    assert answers(engine_of(models, name), asked) == answers(engine_of(models, name), one_by_one)


def test_forced_tokens_take_no_steps(models):
    """A grammar of which 30 % of the places force up to five tokens: fewer steps than tokens."""
    request = Request(prompt(20), GREEDY, grammar=Grammar("lark", "g3 18"))
    engine = engine_of(models)
    engine.add(request)
    events = []
    while engine.has_work:
        events += engine.step()
    stats = events[-1].stats
    assert [event.stats.generated_tokens for event in events] == list(range(1, len(events) + 1))
    assert stats.forced_tokens > 3
    assert engine.instruments.steps < stats.generated_tokens


def test_the_answer_of_greedy_is_the_likeliest_that_is_allowed(models):
    """Of each token drawn, no allowed one is likelier."""
    request = Request(prompt(30), GREEDY, grammar=Grammar("lark", "g5 16"), top_logprobs=20)
    rules, ahead = MadeUp().start(request.grammar), []
    for token, (_, top) in scored_answers(engine_of(models), [request])[0]:
        ahead = ahead or rules.forced()
        if ahead:
            ahead.pop(0)
        else:
            allowed = rules.allowed()
            likelier = [other for other, _ in top[: next((i for i, t in enumerate(top) if t[0] == token), None)]]
            assert not any(allowed[other] for other in likelier)
        rules.accept(token)


def test_stop_tokens_come_only_where_the_grammar_may_end(models):
    """Even when nothing else is likely."""
    sampling = replace(GREEDY, logit_bias={STOP: 100})
    (tokens,) = answers(engine_of(models), [Request(prompt(9), sampling, grammar=Grammar("lark", "g1 15"))])
    assert follows(tokens, "g1 15")
    assert len(tokens) > 1


def test_an_answer_that_is_too_long_ends_as_any_other(models):
    sampling = replace(GREEDY, max_tokens=7, logit_bias={STOP: -100})
    engine = engine_of(models)
    for name in range(6):
        engine.add(Request(prompt(20), sampling, grammar=Grammar("lark", f"g{name} 100")))
    ended = []
    while engine.has_work:
        ended += [event for event in engine.step() if event.finish]
    assert [event.stats.generated_tokens for event in ended] == [7] * 6
    assert {event.finish for event in ended} == {Finish.LENGTH}


def test_a_bias_against_all_that_is_allowed_counts_for_nothing(models):
    sampling = replace(GREEDY, logit_bias=dict.fromkeys(range(1, VOCAB), -np.inf))
    (tokens,) = answers(engine_of(models), [Request(prompt(9), sampling, grammar=Grammar("lark", "g1 15"))])
    follows(tokens, "g1 15")


def test_a_parser_at_its_limit_ends_its_own_answer_only(models):
    engine = engine_of(models)
    failing = engine.add(Request(prompt(20), GREEDY, grammar=Grammar("lark", "g2 100 6")))
    other = engine.add(Request(prompt(20), replace(GREEDY, max_tokens=15)))
    ended = {}
    while engine.has_work:
        ended |= {event.sequence_id: event for event in engine.step() if event.finish}
    assert ended[failing].finish is Finish.LENGTH
    assert ended[failing].stats.cut is Cut.GRAMMAR
    assert ended[failing].stats.generated_tokens == 6
    assert ended[other].stats.generated_tokens == 15
    assert ended[other].stats.cut is None


def test_a_thought_is_free_and_the_grammar_follows_it(models):
    """Token by token as without a grammar, until the thought ends; then what leads to the answer, then the answer."""
    (plain,) = answers(engine_of(models), [Request(prompt(40), GREEDY)])
    end = plain[5]
    at = plain.index(end)
    thought = Thought(end, lead=(7, 8))
    request = Request(prompt(40), GREEDY, thought=thought, grammar=Grammar("lark", "g4 6"))
    (tokens,) = answers(engine_of(models), [request])
    assert tokens[: at + 3] == [*plain[: at + 1], 7, 8]
    assert follows(tokens[at + 3 :], "g4 6")


def test_an_answer_with_a_grammar_cannot_end_inside_its_thought(models):
    sampling = replace(GREEDY, logit_bias={STOP: 100})
    request = Request(prompt(40), sampling, thought=Thought(9, (7,)), grammar=Grammar("lark", "g4 6"))
    (tokens,) = answers(engine_of(models), [request])
    assert tokens[:2] == [9, 7]
    assert follows(tokens[2:], "g4 6")


def test_a_grammar_that_makes_no_sense_is_refused_when_it_is_asked(models):
    engine = engine_of(models)
    with pytest.raises(UsageError, match="the lark is bad"):
        engine.add(Request(prompt(9), GREEDY, grammar=Grammar("lark", "bad")))
    with pytest.raises(UsageError, match="takes no grammars"):
        Engine(models("native"), EngineConfig(200)).add(Request(prompt(9), GREEDY, grammar=Grammar("json_object")))
    for kind, text, message in [("xml", "a", "known are"), ("regex", "", "empty"), ("lark", "a" * 70_000, "bytes")]:
        with pytest.raises(UsageError, match=message):
            Grammar(kind, text)
    assert not engine.has_work


CLOSING, END, LEAD = (11, 12, 13), 9, (7, 8)
NEVER = replace(GREEDY, max_tokens=100, logit_bias={END: -100, STOP: -100})


def whole(engine, request):
    """Its tokens and last event."""
    engine.add(request)
    events = []
    while engine.has_work:
        events += engine.step()
    return [event.token_id for event in events], events[-1]


def test_a_thought_is_ended_at_its_budget_and_the_answer_goes_on(models):
    engine = engine_of(models)
    plain, _ = whole(engine, Request(prompt(40), NEVER))
    thought = Thought(END, LEAD, budget=10, closing=CLOSING)
    tokens, last = whole(engine, Request(prompt(40), NEVER, thought=thought))
    assert tokens[:16] == [*plain[:10], *CLOSING, END, *LEAD]
    assert last.stats.generated_tokens == 100
    assert last.stats.thought_ended is ThoughtEnd.BUDGET
    assert last.stats.forced_tokens == 6
    one_by_one, _ = whole(engine, Request(prompt(40), NEVER, thought=thought, top_logprobs=1))
    assert one_by_one == tokens


@pytest.mark.parametrize("max_tokens", [8, 12, 40, 100])
def test_a_budget_leaves_room_for_the_answer(models, max_tokens):
    """A quarter of what there is; where there is little, without the sentence."""
    sampling = replace(NEVER, max_tokens=max_tokens)
    thought = Thought(END, LEAD, budget=1000, closing=CLOSING)
    tokens, last = whole(engine_of(models), Request(prompt(40), sampling, thought=thought))
    assert len(tokens) - tokens.index(END) - 1 - len(LEAD) == max_tokens // 4
    assert (tokens[tokens.index(END) - 3 : tokens.index(END)] == [*CLOSING]) == (max_tokens >= 16)
    assert last.stats.thought_ended is ThoughtEnd.BUDGET


def test_a_thought_that_ends_by_itself_is_left_alone(models):
    sampling = replace(GREEDY, max_tokens=30, logit_bias={END: 0})
    plain, _ = whole(engine_of(models), Request(prompt(40), sampling))
    thought = Thought(plain[5], LEAD, budget=25, closing=CLOSING)
    tokens, last = whole(engine_of(models), Request(prompt(40), sampling, thought=thought))
    assert tokens == plain
    assert last.stats.thought_ended is None


def test_a_thought_that_repeats_itself_is_ended_and_so_is_the_answer(models, monkeypatch):
    """A model that cannot but say one token."""
    stuck = replace(GREEDY, max_tokens=1500, logit_bias={3: 100})
    monkeypatch.setattr(repetition, "ANSWER_TOKENS", 600)  # a test's model has no longer contexts
    engine = engine_of(models, context_len=2000)
    request = Request(prompt(20), stuck, thought=Thought(END, LEAD, closing=CLOSING), loop_guard=True)
    tokens, last = whole(engine, request)
    assert tokens == [3] * repetition.LEAST_TOKENS + [*CLOSING, END, *LEAD] + [3] * 600
    assert last.finish is Finish.LENGTH
    assert last.stats.thought_ended is ThoughtEnd.LOOP
    assert last.stats.cut is Cut.LOOP
    tokens, last = whole(engine, replace(request, loop_guard=False))
    assert tokens == [3] * 1500
    assert last.stats.cut is None


def test_a_budget_of_nothing_and_ids_of_no_vocabulary_are_refused(models):
    with pytest.raises(UsageError, match="at least 1"):
        Thought(END, budget=0)
    with pytest.raises(UsageError, match="from 0 to 511"):
        engine_of(models).add(Request(prompt(9), GREEDY, thought=Thought(END, closing=(512,))))
