"""Lines of a batch's input: both forms, and that whatever is wrong is said and never raised."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.batch.lines import MAX_LINE_BYTES, SAMPLING, Question, read_line
from qwick.engine.constraint import Grammar

CHAT = [{"role": "user", "content": "hello"}]


def read(value: object) -> Any:
    return read_line(7, json.dumps(value).encode())


def openai(body: object, url: str = "/v1/chat/completions", **more: object) -> dict[str, object]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body} | more


def test_plain_lines() -> None:
    assert read({"prompt": "x"}).question == Question(prompt="x")
    assert read({"prompt": [1, 2], "seed": 3, "stop": "a"}).question == Question(
        prompt=[1, 2], stop=("a",), sampling={"seed": 3}
    )
    line = read({"messages": CHAT, "think": False, "temperature": 0, "top_k": None, "id": 5})
    assert line.question == Question(CHAT, think=False, sampling={"temperature": 0})
    assert read({"prompt": "x", "choices": ["a", "b"]}).question == Question(prompt="x", choices=("a", "b"))
    assert (line.number, line.is_openai) == (7, False)


def test_every_sampling_option_is_taken() -> None:
    values: dict[str, object] = dict.fromkeys(SAMPLING, 1)
    found = read({"prompt": "x", **values, "logit_bias": {"5": -1.5}}).question
    assert found.sampling == {**values, "logit_bias": {5: -1.5}}


def test_lines_of_openai() -> None:
    line = read(openai({"model": "any", "messages": CHAT, "max_completion_tokens": 5, "stream": False, "n": 1}))
    assert line.is_openai
    assert line.question == Question(CHAT, sampling={"max_tokens": 5})
    body = {"prompt": "x", "max_tokens": 5}
    assert read(openai(body, "/v1/completions")).question == Question(prompt="x", sampling={"max_tokens": 5})


@pytest.mark.parametrize("think", [True, False])
def test_the_switch_for_thinking_is_found_in_both_places(think: bool) -> None:
    said = {"enable_thinking": think}
    for body in (said, {"chat_template_kwargs": said}, {**said, "chat_template_kwargs": said}):
        assert read(openai({"messages": CHAT, **body})).question.think is think


def test_what_the_server_takes_a_batch_takes() -> None:
    """By the same forms: tools, what the answer looks like, budgets; habits are named in the answer."""
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    body = {"messages": CHAT, "tools": [tool], "tool_choice": "required", "think": False, "user": "me", "seed": -1}
    found = read(openai(body | {"stop": "x", "loop_guard": False})).question
    assert found.options == {"tools": [tool], "tool_choice": "required", "loop_guard": False}
    assert (found.think, found.stop, found.sampling) == (False, ("x",), {})
    assert [warning.split()[0] for warning in found.warnings] == ["user"]
    found = read(openai({"messages": CHAT, "reasoning_effort": "low", "response_format": {"type": "json_object"}}))
    assert found.question.options == {"thinking_budget": 1024, "grammar": Grammar("json_object")}
    assert found.question.think is True
    found = read(openai({"prompt": [1, 2], "guided_regex": "a"}, "/v1/completions")).question
    assert (found.prompt, found.options) == ([1, 2], {"grammar": Grammar("regex", "a")})


def test_lines_of_our_own_do_without_pydantic() -> None:
    code = (
        "import sys; from qwick.batch.run import read_line; "
        "assert read_line(1, b'{\"prompt\": \"x\"}').question; assert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


WRONG: list[tuple[object, str]] = [
    ([], "the line is"),
    ({}, "either prompt or messages"),
    ({"prompt": "x", "messages": CHAT}, "either prompt or messages"),
    ({"prompt": "x", "temprature": 1}, "temprature"),
    ({"prompt": 5}, "prompt is 5"),
    ({"prompt": ["a", "b"]}, "several lines"),
    ({"prompt": [True]}, "token id"),
    ({"prompt": None}, "prompt is None"),
    ({"messages": "hello"}, "messages"),
    ({"messages": []}, "messages is empty"),
    ({"messages": ["hello"]}, "each of messages"),
    ({"prompt": "x", "think": True}, "think is of chats"),
    ({"messages": CHAT, "think": 1}, "think is 1"),
    ({"prompt": "x", "stop": [1]}, "stop"),
    ({"prompt": "x", "stop": ""}, "stop is empty"),
    ({"prompt": "x", "choices": ["a", "a"]}, "the same"),
    ({"prompt": "x", "choices": "a"}, "choices must be a list"),
    ({"prompt": "x", "choices": []}, "choices must be a list"),
    ({"prompt": "x", "choices": ["a"], "seed": 1}, "leave seed out"),
    ({"prompt": "x", "choices": ["a"], "stop": "b"}, "leave stop out"),
    ({"prompt": "x", "logit_bias": {"a": 1}}, "no token id"),
    ({"prompt": "x", "logit_bias": [1]}, "logit_bias"),
    ({"prompt": "x", "id": [1]}, "id must be"),
    (openai({"messages": CHAT}, custom_id=5), "custom_id"),
    (openai({"messages": CHAT}, method="GET"), "method"),
    (openai({"messages": CHAT}, url="/v1/embeddings"), "url must be"),
    (openai({"messages": CHAT}, more=1), "no 'more'"),
    (openai([]), "body"),
    (openai({"prompt": "x"}), "messages is missing"),
    (openai({}), "messages is missing"),
    (openai({"messages": CHAT}, "/v1/completions"), "prompt is missing"),
    (openai({"messages": CHAT, "temprature": 1}), "'temprature'"),
    (openai({"messages": CHAT, "logprobs": True}), "logprobs is not taken"),
    (openai({"messages": CHAT, "regex": "a", "json_schema": {}}), "regex and json_schema"),
    (openai({"messages": CHAT, "tool_choice": "required"}), "no tools"),
    (openai({"prompt": "x", "echo": True}, "/v1/completions"), "echo is not taken"),
    (openai({"prompt": ["x", "y"]}, "/v1/completions"), "several lines"),
    (openai({"messages": CHAT, "stream": True}), "stream"),
    (openai({"messages": CHAT, "n": 2}), "n must be 1"),
    (openai({"messages": CHAT, "model": 5}), "model"),
    (openai({"messages": CHAT, "max_tokens": 5, "max_completion_tokens": 6}), "differ"),
    (openai({"messages": CHAT, "chat_template_kwargs": {"x": 1}}), "chat_template_kwargs.x"),
    (
        openai({"messages": CHAT, "enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}}),
        "contradict",
    ),
]


@pytest.mark.parametrize(("value", "said"), WRONG)
def test_what_is_wrong_is_said(value: object, said: str) -> None:
    line = read(value)
    assert line.question is None
    assert said in line.error


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "not JSON"),
        (b'{"prompt": "\xff"}', "not UTF-8 (byte 12)"),
        (b'{"prompt": "x", "seed": NaN}', "NaN is no number"),
        (b"[" * 100_000, "not JSON"),
        (b"1" * 5000, "not JSON"),
        (b" " * (MAX_LINE_BYTES + 1), "more than 16 MiB"),
    ],
)
def test_what_is_no_json_is_said(data: bytes, said: str) -> None:
    assert said in read_line(1, data).error


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([*SAMPLING, "prompt", "messages", "custom_id", "body", "url", "method", "stop", "choices", "n"])


@given(st.dictionaries(NAMES, JSON | st.dictionaries(NAMES, JSON, max_size=4), max_size=6))
def test_no_line_raises(value: dict[str, object]) -> None:
    line = read(value)
    assert (line.question is None) == bool(line.error)


@given(st.binary(max_size=60))
def test_no_bytes_raise(data: bytes) -> None:
    line = read_line(1, data)
    assert (line.question is None) == bool(line.error)
