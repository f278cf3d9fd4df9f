"""Thoughts over HTTP: apart from the content, ended at their budget or where they only repeat themselves."""

from typing import Any

import openai
import pytest

from tests.server.scripted_asking import both, say, streamed, whole

LONG = " ".join(f"Point {number} is to be thought of." for number in range(80))
THOUGHT = f"{LONG}\n</think>\n\nThe answer is 42."
CLOSING = "I have to give the solution based on the thinking directly now."
ROUND = "But wait, is that so? "


def asked(client: openai.OpenAI, script: str, **more: Any) -> Any:
    return both(client, say(script), extra_body=more)


def test_reasoning_and_content_are_apart(scripted_client: openai.OpenAI) -> None:
    said = asked(scripted_client, "First this,\n\nthen that.\n</think>\n\nSo it is.\n")
    assert (said.reasoning, said.content, said.finish) == ("First this,\n\nthen that.", "So it is.\n", "stop")


def test_all_of_the_thought_comes_before_the_content(scripted_client: openai.OpenAI) -> None:
    order: list[str] = []
    for chunk in scripted_client.chat.completions.create(**say(THOUGHT), stream=True):
        for choice in chunk.choices:
            delta = choice.delta
            order += ["reasoning"] if getattr(delta, "reasoning_content", None) else []
            order += ["content"] if delta.content else []
    assert order == sorted(order, reverse=True)
    assert order.count("reasoning") > 50
    assert order.count("content") > 3


@pytest.mark.parametrize(
    "switch",
    [
        {"enable_thinking": False},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "none"},
        {"thinking_budget": 0},
    ],
)
def test_without_a_thought_there_is_none(scripted_client: openai.OpenAI, switch: Any) -> None:
    said = asked(scripted_client, THOUGHT, **switch)
    assert (said.reasoning, said.content) == ("", "The answer is 42.")
    assert said.usage.completion_tokens < 20


def test_what_looks_like_the_end_of_a_thought_elsewhere_is_text(scripted_client: openai.OpenAI) -> None:
    said = asked(scripted_client, "a</think>\n\nIt ends with </think>, they say.")
    assert (said.reasoning, said.content) == ("a", "It ends with </think>, they say.")


@pytest.mark.parametrize("budget", [1, 20, 100])
def test_a_budget_ends_the_thought_and_an_answer_follows(scripted_client: openai.OpenAI, budget: int) -> None:
    said = asked(scripted_client, THOUGHT, thinking_budget=budget)
    assert (said.content, said.finish) == ("The answer is 42.", "stop")
    thought, _, closing = said.reasoning.partition("\n\nConsidering the limited time by the user")
    assert closing.endswith(CLOSING)
    assert LONG.startswith(thought)
    assert said.warnings == ["the thought was ended: its tokens were used up"]
    assert budget <= said.usage.completion_tokens <= budget + 50


def test_a_budget_that_is_not_reached_changes_nothing(scripted_client: openai.OpenAI) -> None:
    script = "Short.\n</think>\n\nThe answer."
    assert asked(scripted_client, script, thinking_budget=500) == asked(scripted_client, script)
    assert not asked(scripted_client, script, thinking_budget=500).warnings


def test_a_budget_leaves_room_for_the_answer(scripted_client: openai.OpenAI) -> None:
    """However large it is, and however long the thought: max_tokens is for both."""
    said = both(scripted_client, say(THOUGHT), max_tokens=120, extra_body={"thinking_budget": 100_000})
    assert (said.content, said.finish) == ("The answer is 42.", "stop")
    assert said.usage.completion_tokens <= 120
    said = both(scripted_client, say(THOUGHT), max_tokens=120)
    assert (said.content, said.finish) == ("", "length")


def test_a_thought_that_only_repeats_itself_is_ended(scripted_client: openai.OpenAI) -> None:
    script = f"Hm. {ROUND * 400}\n</think>\n\nThe answer is 42."
    said = asked(scripted_client, script)
    assert (said.content, said.finish) == ("The answer is 42.", "stop")
    assert said.reasoning.startswith(f"Hm. {ROUND * 8}")
    assert said.reasoning.count(ROUND) < 200
    assert said.reasoning.endswith(CLOSING)
    assert said.warnings == ["the thought was ended: it repeated itself"]


def test_an_answer_that_only_repeats_itself_ends(scripted_client: openai.OpenAI) -> None:
    said = streamed(scripted_client, say(f"{ROUND * 660}The end."), extra_body={"enable_thinking": False})
    assert said.content.startswith(ROUND * 8)
    assert said.content.count(ROUND) < 640
    assert said.finish == "length"
    assert said.warnings == ["the answer was cut: it repeated itself (loop_guard false lets it go on)"]


def test_what_repeats_itself_a_little_goes_on(scripted_client: openai.OpenAI) -> None:
    table = "\n".join(f"| {number} | {number * number} | yes | yes |" for number in range(40))
    for script in (f"{ROUND * 6}\n</think>\n\n{ROUND * 6}", f"Rows.\n</think>\n\n{table}"):
        said = asked(scripted_client, script)
        assert f"{said.reasoning}\n</think>\n\n{said.content}" == script


def test_a_thought_that_never_ends_is_reasoning(scripted_client: openai.OpenAI) -> None:
    said = both(scripted_client, say(LONG), max_tokens=60)
    assert LONG.startswith(said.reasoning)
    assert (said.content, said.finish) == ("", "length")


def test_the_thought_counts_as_tokens_of_the_answer(scripted_client: openai.OpenAI) -> None:
    long, short = whole(scripted_client, say(THOUGHT)), whole(scripted_client, say("a\n</think>\n\nThe answer is 42."))
    assert long.usage.completion_tokens > short.usage.completion_tokens + 500
    assert streamed(scripted_client, say(THOUGHT)).usage.completion_tokens == long.usage.completion_tokens


def test_a_thought_is_begun_for_the_model(scripted_client: openai.OpenAI) -> None:
    """`continue_final_message` in the middle of a thought, and of the content behind it."""
    body = say("One, two, three.\n</think>\n\nFour, five, six.")
    for beginning, reasoning, content in (
        ({"reasoning_content": "One, two,"}, " three.", "Four, five, six."),
        ({"reasoning_content": "One, two, three.", "content": "Four,"}, "", " five, six."),
    ):
        begun = body | {"messages": [*body["messages"], {"role": "assistant", **beginning}]}
        said = both(scripted_client, begun, extra_body={"continue_final_message": True})
        assert (said.reasoning.strip(), said.content) == (reasoning.strip(), content)
