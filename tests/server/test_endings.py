"""Thoughts and answers that were ended for them say so: on the scripted model, whose answers a bias can trap."""

from typing import Any

import openai
import pytest

from qwick.api.thinking import BUDGETS
from qwick.engine.repetition import LEAST_TOKENS
from tests.server.running import Running
from tests.server.scripted_asking import say

THOUGHT = "I think. </think>\n\nIt is 4."
LONG = " ".join(f"Thought {i} is of {i * 37 % 101}." for i in range(125)) + "</think>\n\nIt is 4."


def stuck(server: Running, text: str) -> dict[str, float]:
    """A bias that lets the model say nothing but this token."""
    (token_id,) = server.ask("/tokenize", {"prompt": text})[1]["tokens"]
    return {str(token_id): 100}


def whole(client: openai.OpenAI, body: Any) -> tuple[Any, list[str]]:
    answer = client.chat.completions.create(**body)
    return answer, getattr(answer, "warnings", [])


def streamed(client: openai.OpenAI, body: Any) -> tuple[str, str, str | None, list[str]]:
    """Reasoning, content, finish_reason, and the warnings, which come with it."""
    reasoning, content, finish, warnings = "", "", None, list[str]()
    for chunk in client.chat.completions.create(**body, stream=True):
        (choice,) = chunk.choices
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        content += choice.delta.content or ""
        finish = choice.finish_reason or finish
        found = getattr(chunk, "warnings", [])
        assert not found or choice.finish_reason
        warnings += found
    return reasoning, content, finish, warnings


def test_a_thought_in_a_loop_is_ended_and_told(scripted_client: openai.OpenAI, scripted_server: Running) -> None:
    metric = 'qwick_interventions_total{kind="thought_loop"}'
    before = scripted_server.metric(metric)
    body = say(THOUGHT) | {"logit_bias": stuck(scripted_server, " the"), "max_tokens": LEAST_TOKENS + 60}
    answer, warnings = whole(scripted_client, body | {"extra_body": {"enable_thinking": True}})
    message = answer.choices[0].message
    assert message.reasoning_content.startswith(" the" * LEAST_TOKENS + "\n\n")
    assert message.content
    assert len(warnings) == 1
    assert ("thought" in warnings[0], "repeated itself" in warnings[0]) == (True, True)
    reasoning, content, finish, told = streamed(scripted_client, body | {"extra_body": {"enable_thinking": True}})
    assert (reasoning, content, finish) == (message.reasoning_content, message.content, "length")
    assert told == warnings
    scripted_server.until(lambda: scripted_server.metric(metric) == before + 2)
    assert '"interventions": ["thought_loop"]' in scripted_server.log


def test_the_guard_can_be_left_out(scripted_client: openai.OpenAI, scripted_server: Running) -> None:
    body = say(THOUGHT) | {"logit_bias": stuck(scripted_server, " the"), "max_tokens": LEAST_TOKENS + 60}
    answer, warnings = whole(scripted_client, body | {"extra_body": {"enable_thinking": True, "loop_guard": False}})
    message = answer.choices[0].message
    assert (message.reasoning_content, message.content) == (" the" * (LEAST_TOKENS + 60), "")
    assert warnings == []


@pytest.mark.parametrize(
    ("said", "budget"),
    [
        ({"reasoning_effort": "low"}, BUDGETS["low"]),
        ({"thinking_budget": 100}, 100),
        ({"thinking_budget": 100, "reasoning_effort": "high"}, 100),
        ({"reasoning_effort": "medium"}, None),  # more than this thought takes
    ],
)
def test_effort_is_a_budget_of_thought(
    scripted_client: openai.OpenAI, scripted_server: Running, said: Any, budget: int | None
) -> None:
    reasoning, content, _, warnings = streamed(scripted_client, say(LONG) | {"extra_body": said})
    tokens = len(scripted_server.ask("/tokenize", {"prompt": reasoning})[1]["tokens"])
    assert content
    if budget is None:
        assert (reasoning, content, warnings) == (LONG.partition("</think>")[0], "It is 4.", [])
    else:
        assert budget <= tokens < budget + 40  # and the sentence that ends it
        assert "thought" in warnings[0]
        assert len(warnings) == 1


@pytest.mark.parametrize("max_tokens", [40, 200])
@pytest.mark.parametrize("said", [{"reasoning_effort": "low"}, {"thinking_budget": 10_000}])
def test_a_budget_leaves_room_however_little_there_is(
    scripted_client: openai.OpenAI, max_tokens: int, said: Any
) -> None:
    answer, warnings = whole(scripted_client, say(LONG) | {"max_tokens": max_tokens, "extra_body": said})
    assert answer.choices[0].message.content
    assert len(warnings) == 1


def test_warnings_of_several_choices_say_of_which(scripted_client: openai.OpenAI) -> None:
    body = say(LONG) | {"n": 2, "extra_body": {"thinking_budget": 20}, "user": "me", "max_tokens": 60}
    _, warnings = whole(scripted_client, body)
    assert warnings[0].startswith("user ")
    assert [warning.partition(":")[0] for warning in warnings[1:]] == ["choice 0", "choice 1"]
    told = list[str]()
    for chunk in scripted_client.chat.completions.create(**body, stream=True):
        told += getattr(chunk, "warnings", [])
    assert sorted(told) == sorted(warnings)
