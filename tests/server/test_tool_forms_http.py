"""Calls as models write them, well or badly, over HTTP: what is streamed is what is said in one piece."""

import json
from typing import Any

import openai
import pytest

from tests.server.scripted_asking import TOOLS, both, call, say
from tests.text.tool_call_cases import LLAMA_CPP, THINKING, Case

ULM = call("weather", city="Ulm", days=3)
CALLED = [("weather", {"city": "Ulm", "days": 3})]
BODY = '{"name": "weather", "arguments": {"city": "Ulm", "days": 3}}'


def asked(client: openai.OpenAI, script: str, *, think: bool = False) -> Any:
    return both(client, say(script), tools=TOOLS, extra_body={"enable_thinking": think})


@pytest.mark.parametrize(
    "script",
    [
        ULM.removesuffix("\n</tool_call>"),
        ULM.removesuffix("\n</function>\n</tool_call>"),
        ULM.removesuffix("\n</parameter>\n</function>\n</tool_call>"),
        ULM.replace("\n</function>", ""),
    ],
)
def test_closers_may_be_missing(free_client: openai.OpenAI, script: str) -> None:
    said = asked(free_client, script)
    assert said.arguments == CALLED
    assert (said.content, said.finish) == ("", "tool_calls")


@pytest.mark.parametrize(
    "script",
    [
        f"<tool_call>\n{BODY}\n</tool_call>",
        f"<tool_call>{BODY}</tool_call>",
        f"<tool_call>\n{BODY}",
        '<tool_call>\n<function=weather>\n{"city": "Ulm", "days": 3}\n</function>\n</tool_call>',
        "<tool_call>\n" + json.dumps({"name": "weather", "arguments": '{"city": "Ulm", "days": 3}'}) + "\n</tool_call>",
    ],
)
def test_calls_may_be_json(free_client: openai.OpenAI, script: str) -> None:
    said = asked(free_client, script)
    assert said.arguments == CALLED
    assert (said.content, said.finish) == ("", "tool_calls")


@pytest.mark.parametrize("end", ["", "\n</think>", "\n</think>\n\n"])
def test_a_call_inside_the_thought_ends_it(free_client: openai.OpenAI, end: str) -> None:
    said = asked(free_client, f"I need the weather.\n{ULM}{end}", think=True)
    assert said.arguments == CALLED
    assert (said.reasoning, said.content, said.finish) == ("I need the weather.", "", "tool_calls")


def test_text_behind_a_call_is_content(free_client: openai.OpenAI) -> None:
    said = asked(free_client, f"{ULM}\nThat was it.")
    assert said.arguments == CALLED
    assert said.content.strip() == "That was it."


def test_a_tool_that_is_not_there_is_called_with_texts(free_client: openai.OpenAI) -> None:
    said = asked(free_client, call("news", about="5"))
    assert said.arguments == [("news", {"about": "5"})]


def test_what_only_looks_like_a_call_is_text(free_client: openai.OpenAI) -> None:
    for script in ('<tool_call>\n{"a": 1}\n</tool_call>', "They write <tool_call> before it.", "<function=x>"):
        said = asked(free_client, script)
        assert (said.content.strip(), said.calls, said.finish) == (script, [], "stop")


def answerable(case: Case) -> bool:
    """Whether a chat's prompt may end so: not in the middle of a thought with a word of it."""
    return case.prompt.endswith(("<think>\n", "</think>\n\n", "</think>\n\nHello, "))


@pytest.mark.parametrize("case", [case for case in LLAMA_CPP if answerable(case)])
def test_the_cases_of_llama_cpp(free_client: openai.OpenAI, case: Case) -> None:
    body = say(case.raw)
    options: Any = {"tools": list(case.tools)} if case.tools else {}
    more: Any = {"enable_thinking": case.prompt.startswith(THINKING)}
    if case.prompt.endswith("Hello, "):
        body["messages"].append({"role": "assistant", "content": "Hello, ", "reasoning_content": "I'm thinking"})
        more["continue_final_message"] = True
    said = both(free_client, body, **options, extra_body=more)
    assert (said.reasoning, said.content, said.arguments) == (case.reasoning, case.content, list(case.calls))
    assert said.finish == ("tool_calls" if case.calls else "stop")


def test_all_cases_but_one_are_asked() -> None:
    assert len(LLAMA_CPP) - sum(map(answerable, LLAMA_CPP)) == 1
