"""Answers with tool calls, on a small model and made-up grammars of a few tokens: free, held, and free again."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.engine.calls import Calls
from qwick.engine.constraint import Grammar
from qwick.engine.guidance import Cut, Thought
from qwick.engine.request import Finish, Request
from qwick.errors import UsageError
from tests.engine.asking import answers, prompt
from tests.engine.test_guidance import GREEDY, STOP, VOCAB, MadeUp, Rules, engine_of, whole

BEGIN, END, BETWEEN = 490, 491, 492
WEIGHTED = replace(GREEDY, max_tokens=60, logit_bias={BEGIN: 100})


class Call(Rules):
    """Some tokens by the rules, and the id that ends a call."""

    @property
    def is_over(self):
        return bool(self.tokens) and self.tokens[-1] == END

    def again(self):
        return Call(self.name, self.length, self.fails_at)

    def forced(self):
        return [END] if len(self.tokens) >= self.length else [token % BEGIN for token in super().forced()]

    def allowed(self):
        return super().allowed() & (np.arange(VOCAB) < BEGIN) | (np.arange(VOCAB) == 5)


class Tools(MadeUp):
    """Of both kinds."""

    def start(self, grammar):
        found = super().start(grammar)
        return Call(found.name, found.length, found.fails_at) if grammar.kind == "tools" else found


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.setattr("tests.engine.test_guidance.MadeUp", Tools)


def calls(name="c1 7", **more):
    return Calls(Grammar("tools", name), BEGIN, (BETWEEN,), STOP, **more)


def parts(tokens):
    """What is outside of calls, and the calls without their first token."""
    outside, inside, found = [], None, []
    for token in tokens:
        if inside is not None:
            inside.append(token)
            if token == END:
                found.append(inside)
                inside = None
        elif token == BEGIN:
            inside = []
        else:
            outside.append(token)
    return outside, found, inside


def is_call(tokens):
    call, ahead = Call("c1", 7), []
    for token in tokens:
        ahead = ahead or call.forced()
        assert token == ahead.pop(0) if ahead else call.allowed()[token]
        call.accept(token)
    return call.is_over


def test_an_answer_is_free_until_a_call_begins_and_free_again_behind_it(models):
    """Up to the first call it is token by token what it would be without tools."""
    plain, _ = whole(engine_of(models), Request(prompt(40), replace(GREEDY, max_tokens=60)))
    begin = plain[4]
    at = plain.index(begin)
    request = Request(
        prompt(40),
        replace(GREEDY, max_tokens=60),
        calls=replace(calls(), begin=begin),
    )
    tokens, last = whole(engine_of(models), request)
    assert tokens[: at + 1] == plain[: at + 1]
    end = tokens.index(END)
    assert is_call(tokens[at + 1 : end + 1])
    assert len(tokens) > end + 1  # and it is not over
    assert not last.stats.loose


def test_several_calls_each_by_the_grammar(models):
    tokens, last = whole(engine_of(models), Request(prompt(40), WEIGHTED, calls=calls()))
    outside, found, open_call = parts(tokens)
    assert not outside
    assert len(found) >= 4
    assert all(map(is_call, found))
    assert last.finish is Finish.LENGTH
    assert open_call is not None


def test_one_call_ends_the_answer_where_only_one_is_allowed(models):
    tokens, last = whole(engine_of(models), Request(prompt(40), WEIGHTED, calls=calls(several=False)))
    assert parts(tokens)[0] == [STOP]
    assert len(parts(tokens)[1]) == 1
    assert last.finish is Finish.STOP


@pytest.mark.parametrize("several", [True, False])
def test_a_required_call_comes_at_once_and_nothing_but_calls_follows(models, several):
    """The model wants another token than those that may follow a call."""
    for bias in ({}, {BETWEEN: 100}):
        sampling = replace(GREEDY, max_tokens=45, logit_bias={7: 50} | bias)
        request = Request(prompt(40), sampling, calls=calls(required=True, several=several))
        tokens, last = whole(engine_of(models), request)
        outside, found, _ = parts(tokens)
        assert tokens[0] == BEGIN
        assert all(map(is_call, found))
        if several and bias:
            assert len(found) >= 3
            assert set(outside) == {BETWEEN}
            assert all(tokens[i + 1] == BEGIN for i, token in enumerate(tokens) if token == BETWEEN)
        else:
            assert last.finish is Finish.STOP
            assert outside == [STOP]
            assert len(found) == 1


def test_behind_a_thought_a_required_call_comes_whatever_the_model_says(models):
    """Neither the end of the answer nor a call come inside the thought: it ends instead."""
    for eager in (STOP, BEGIN):
        sampling = replace(GREEDY, max_tokens=40, logit_bias={eager: 100})
        thought = Thought(9, (7, 8))
        tokens, _ = whole(engine_of(models), Request(prompt(40), sampling, thought=thought, calls=calls(required=True)))
        assert tokens[:4] == [9, 7, 8, BEGIN]
        assert is_call(tokens[4 : tokens.index(END) + 1])


def test_in_a_thought_calls_are_free_and_the_answer_may_end_in_it(models):
    sampling = replace(GREEDY, max_tokens=30, logit_bias={BEGIN: 100})
    request = Request(prompt(40), sampling, thought=Thought(9), calls=calls())
    assert whole(engine_of(models), request)[0] == [BEGIN] * 30
    sampling = replace(GREEDY, logit_bias={STOP: 100})
    assert whole(engine_of(models), replace(request, sampling=sampling))[0] == [STOP]


@pytest.mark.parametrize("forces", [False, True])
def test_beside_a_grammar_the_answer_is_calls_or_a_text_of_it(models, monkeypatch, forces):
    """What the first token says decides, also where the text's first token is the only one."""
    plain = Rules.forced
    monkeypatch.setattr(Rules, "forced", lambda rules: [5] if forces and not rules.tokens else plain(rules))
    monkeypatch.setattr(Call, "forced", lambda call: [END] if len(call.tokens) >= call.length else [])
    grammar = Grammar("lark", "g4 9")
    (text,) = answers(
        engine_of(models), [Request(prompt(40), replace(GREEDY, logit_bias={BEGIN: -100}), grammar=grammar)]
    )
    request = Request(prompt(40), replace(GREEDY, logit_bias={BEGIN: -100}), grammar=grammar, calls=calls())
    assert whole(engine_of(models), request)[0][:1] == text[:1]
    assert BEGIN not in whole(engine_of(models), request)[0]
    tokens, last = whole(engine_of(models), replace(request, sampling=WEIGHTED))
    outside, found, _ = parts(tokens)
    assert found
    assert set(outside) <= {BETWEEN, STOP}
    assert (outside[-1:] == [STOP]) == (last.finish is Finish.STOP)


def test_a_call_that_its_parser_cannot_follow_is_let_go_where_text_is_free(models):
    tokens, last = whole(engine_of(models), Request(prompt(40), WEIGHTED, calls=calls("c2 50 4")))
    assert END not in tokens
    assert tokens.count(BEGIN) > 2  # of which each was held to the grammar for a while
    assert "let go" in last.stats.loose
    assert last.stats.generated_tokens == 60
    request = Request(prompt(40), WEIGHTED, calls=calls("c2 50 4", required=True))
    assert whole(engine_of(models), request)[1].stats.cut is Cut.GRAMMAR


def test_tools_that_no_grammar_can_be_made_of_leave_the_answer_free_or_are_refused(models):
    plain, _ = whole(engine_of(models), Request(prompt(40), WEIGHTED))
    tokens, last = whole(engine_of(models), Request(prompt(40), WEIGHTED, calls=calls("bad")))
    assert tokens == plain
    assert "is bad" in last.stats.loose
    with pytest.raises(UsageError, match="is bad"):
        engine_of(models).add(Request(prompt(40), WEIGHTED, calls=calls("bad", required=True)))


asked = st.lists(
    st.builds(
        lambda length, seed, required, name: Request(
            prompt(length, seed), replace(WEIGHTED, seed=seed, temperature=1.0), calls=calls(name, required=required)
        ),
        st.integers(1, 60),
        st.integers(0, 30),
        st.booleans(),
        st.sampled_from(["c1 7", "c3 20", "c2 50 4"]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=10, deadline=None)
@given(asked=asked, step_tokens=st.integers(4, 100))
def test_calls_do_not_depend_on_company_nor_on_runs(models, asked, step_tokens):
    together = answers(engine_of(models, step_tokens=step_tokens), asked)
    alone = engine_of(models, max_sequences=1, step_tokens=200)
    assert together == [answers(alone, [request])[0] for request in asked]
    assert together == answers(engine_of(models), [replace(request, top_logprobs=0) for request in asked])


def test_ids_of_no_vocabulary_are_refused(models):
    with pytest.raises(UsageError, match="from 0 to 511"):
        engine_of(models).add(Request(prompt(9), GREEDY, calls=replace(calls(), between=(512,))))
