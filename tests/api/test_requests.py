"""What forms of requests mean, without a server."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from qwick.api.messages import Message
from qwick.api.requests import ChatRequest, CompletionRequest, TokenizeRequest
from qwick.api.thinking import BUDGETS
from qwick.engine.constraint import GrammarKind
from qwick.errors import UsageError

MESSAGES: Any = [{"role": "user", "content": "x"}]


def chat(**more: Any) -> ChatRequest:
    return ChatRequest.model_validate({"messages": MESSAGES, **more})


@pytest.mark.parametrize(
    ("said", "thinks", "budget"),
    [
        ({}, None, None),
        ({"reasoning_effort": "none"}, False, None),
        ({"reasoning_effort": "minimal"}, False, None),
        ({"reasoning_effort": "low"}, True, BUDGETS["low"]),
        ({"reasoning_effort": "medium"}, True, BUDGETS["medium"]),
        ({"reasoning_effort": "high"}, True, None),
        ({"reasoning_effort": "xhigh"}, True, None),
        ({"reasoning_effort": "low", "thinking_budget": 7}, True, 7),
        ({"reasoning_effort": "high", "thinking_budget": 7}, True, 7),
        ({"thinking_budget": 7}, True, 7),
        ({"thinking_budget": 0}, False, 0),
        ({"think": True, "enable_thinking": True, "thinking_budget": 7}, True, 7),
    ],
)
def test_effort_and_budget_are_one_switch_and_one_budget(said: Any, thinks: bool | None, budget: int | None) -> None:
    body = chat(**said)
    assert (body.thinks, body.budget) == (thinks, budget)


def test_more_effort_is_a_larger_budget() -> None:
    assert 0 < BUDGETS["low"] < BUDGETS["medium"]


@pytest.mark.parametrize(
    "said",
    [
        {"reasoning_effort": "none", "thinking_budget": 7},
        {"reasoning_effort": "low", "thinking_budget": 0},
        {"enable_thinking": False, "reasoning_effort": "low"},
        {"think": False, "thinking_budget": 7},
        {"chat_template_kwargs": {"enable_thinking": True}, "thinking_budget": 0},
    ],
)
def test_contradictions_are_refused(said: Any) -> None:
    with pytest.raises(UsageError, match="contradict"):
        _ = chat(**said).thinks


SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, GrammarKind.JSON_OBJECT),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, GrammarKind.JSON_SCHEMA),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, GrammarKind.JSON_SCHEMA),
        ({"json_schema": SCHEMA}, GrammarKind.JSON_SCHEMA),
        ({"regex": "a"}, GrammarKind.REGEX),
        ({"grammar": 'root ::= "a"'}, GrammarKind.GBNF),
        ({"grammar": 'start: "a"'}, GrammarKind.LARK),
        ({"guided_json": SCHEMA}, GrammarKind.JSON_SCHEMA),
        ({"guided_json": '{"type": "object"}'}, GrammarKind.JSON_SCHEMA),
        ({"guided_regex": "a"}, GrammarKind.REGEX),
        ({"guided_choice": ["a", "b"]}, GrammarKind.REGEX),
        ({"guided_grammar": 'root ::= "a"'}, GrammarKind.GBNF),
        ({"structured_outputs": {"json": SCHEMA}}, GrammarKind.JSON_SCHEMA),
        ({"structured_outputs": {"json_object": True}}, GrammarKind.JSON_OBJECT),
        ({"structured_outputs": {"choice": ["a"]}}, GrammarKind.REGEX),
        ({"structured_outputs": {}}, None),
    ],
)
def test_all_ways_to_say_a_form_are_known_to_both_routes(said: Any, kind: GrammarKind | None) -> None:
    for body in (chat(**said), CompletionRequest.model_validate({"prompt": "x", **said})):
        found = body.constraint()
        assert (None if found is None else found.kind) == kind


@pytest.mark.parametrize(
    "said",
    [
        {"regex": "a", "guided_regex": "a"},
        {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_object", "json_schema": {"schema": SCHEMA}}},
        {"response_format": {"type": "text", "schema": SCHEMA}},
        {"regex": ""},
    ],
)
def test_two_forms_at_once_and_halves_of_one_are_refused(said: Any) -> None:
    with pytest.raises(UsageError):
        chat(**said).constraint()


def test_choices_are_texts_not_expressions() -> None:
    texts = ["a.c", "(yes|no)", "1 + 1", "\\d", 'say "hi"\n', "né"]
    grammar = chat(guided_choice=texts).constraint()
    assert grammar
    assert all(re.fullmatch(grammar.text, text) for text in texts)
    assert not any(re.fullmatch(grammar.text, text) for text in ("abc", "yes", "11", "7"))


@pytest.mark.parametrize("name", ["tools", "think", "reasoning_effort", "tool_choice", "thinking_budget"])
def test_what_is_of_chats_is_of_no_text(name: str) -> None:
    said: Any = {"tools": [], "think": True, "reasoning_effort": "low", "tool_choice": "auto", "thinking_budget": 3}
    with pytest.raises(UsageError, match=name):
        TokenizeRequest.model_validate({"prompt": "x", name: said[name]}).text()


def test_a_million_things_that_are_wrong_are_one_error() -> None:
    for wrong in ([[]] * 100_000, [{}] * 100_000):
        with pytest.raises(ValidationError) as error:
            ChatRequest.model_validate({"messages": wrong})
        assert error.value.error_count() < 10
        with pytest.raises(ValidationError) as error:
            CompletionRequest.model_validate({"prompt": wrong})
        assert error.value.error_count() < 20


def test_parts_and_tools_that_are_wrong_are_few_errors() -> None:
    for body in (
        {"messages": [{"role": "user", "content": [{}] * 100_000}]},
        {"messages": [{"role": "assistant", "tool_calls": [{}] * 100_000}]},
        {"messages": MESSAGES, "tools": [{}] * 100_000},
        {"messages": MESSAGES, "logit_bias": {str(i): "x" for i in range(100_000)}},
        {"messages": MESSAGES, "stop": [1] * 100_000},
        {"messages": MESSAGES, **{f"x{i}": 1 for i in range(100_000)}},
    ):
        with pytest.raises(ValidationError) as error:
            ChatRequest.model_validate(body)
        assert error.value.error_count() < 5000


def test_messages_of_clients_are_taken() -> None:
    for message in (
        {"role": "assistant", "content": None, "tool_calls": [], "refusal": None, "annotations": []},
        {"role": "assistant"},
        {"role": "tool", "content": "3", "tool_call_id": "x", "name": "add"},
        {"role": "user", "content": []},
    ):
        assert Message.model_validate(message).plain()["content"] is not None
