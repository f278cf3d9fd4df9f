"""Tool calls of a model that talks nonsense: held to their form, behind thoughts and beside text."""

import asyncio
import json
import re

import pytest

from qwick import constraining
from qwick.async_llm import AsyncLLM
from qwick.engine.constraint import Grammar
from qwick.llm import LLM
from qwick.opening import EngineOptions
from tests.small_model import write_small_model
from tests.test_call_grammar import BOOK, is_of
from tests.test_tools import TEMPLATES

ASKED = [{"role": "user", "content": "Book a room in Bonn for 3 nights."}]
# Nothing that a model may write for ever.
SHORT = {key: schema for key, schema in BOOK["properties"].items() if key not in ("where", "home")}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "book", "parameters": {**BOOK, "properties": SHORT, "required": ["nights"]}},
    },
    {"type": "function", "function": {"name": "now", "parameters": {}}},
]
HOT = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "max_tokens": 900}
NAMED = {"type": "function", "function": {"name": "now"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = write_small_model(tmp_path_factory.mktemp("model"))
    (found / "chat_template.jinja").write_bytes((TEMPLATES / "qwen3.5_0.8b_2b.jinja").read_bytes())
    return found


@pytest.fixture(scope="module")
def llm(folder):
    with LLM(folder, threads=1, max_sequences=4, context_len=4096) as llm:
        yield llm


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(constraining, "MOST_SECONDS", 20.0)  # machines of tests are busy


def check(calls):
    for call in calls:
        arguments = json.loads(call.arguments)
        if call.name == "book":
            assert {"nights"} <= set(arguments) <= set(SHORT)
            assert all(is_of(value, SHORT[key]) for key, value in arguments.items())
        else:
            assert (call.name, arguments) == ("now", {})


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_required_call_is_one_of_the_tools_whatever_the_model_would_say(llm, choice):
    streams = [
        llm.chat(ASKED, think=False, tools=TOOLS, tool_choice=choice, stream=True, seed=seed, **HOT)
        for seed in range(8)
    ]
    ended = [stream.completion for stream in streams if stream.completion.finish_reason != "length"]
    assert len(ended) >= 4
    for completion in ended:
        assert completion.finish_reason == "tool_calls"
        assert (completion.text, completion.reasoning, completion.stats.loose) == ("", "", "")
        assert completion.tool_calls
        check(completion.tool_calls)
        if choice is NAMED:
            assert [call.name for call in completion.tool_calls] == ["now"]


def test_the_model_may_think_before_a_required_call(llm):
    free = llm.chat(ASKED, think=True, temperature=0, max_tokens=20, tools=TOOLS)
    for seed in range(4):
        completion = llm.chat(
            ASKED,
            think=True,
            temperature=0,
            tools=TOOLS,
            tool_choice=NAMED,
            thinking_budget=20,
            max_tokens=400,
            seed=seed,
        )
        assert completion.reasoning[:10] == free.reasoning[:10] != ""
        assert completion.text == ""
        assert [call.name for call in completion.tool_calls] == ["now"]


def test_what_begins_as_a_call_is_one(llm):
    """Where a model may call, and does. What comes before is as it would be without tools' grammar."""
    begin = llm.tokenizer.added_tokens["<tool_call>"]
    bias = {"logit_bias": {begin: 6.0}}
    made = 0
    for seed in range(12):
        completion = llm.chat(ASKED, think=False, tools=TOOLS, seed=seed, **bias, **HOT)
        calls = completion.tool_calls if completion.finish_reason != "length" else completion.tool_calls[:-1]
        check(calls)
        made += len(calls)
        assert "<function" not in completion.text or completion.finish_reason == "length"
    assert made >= 6


@pytest.mark.parametrize("bias", [-100.0, 100.0])
def test_beside_a_grammar_an_answer_is_calls_or_a_text_of_it(llm, bias):
    begin = llm.tokenizer.added_tokens["<tool_call>"]
    for seed in range(4):
        completion = llm.chat(
            ASKED,
            think=False,
            tools=TOOLS,
            parallel_tool_calls=False,
            grammar=Grammar("regex", "yes|no|(maybe ){1,5}"),
            seed=seed,
            logit_bias={begin: bias},
            **HOT,
        )
        if bias < 0:
            assert re.fullmatch("yes|no|(maybe ){1,5}", completion.text)
            assert not completion.tool_calls
        elif completion.finish_reason != "length":
            assert completion.text == ""
            assert len(completion.tool_calls) == 1
            check(completion.tool_calls)


def test_it_is_the_same_for_many_callers_and_scores_change_nothing(llm, folder):
    options = {"think": False, "tools": TOOLS, "tool_choice": "required", "seed": 5, **HOT, "max_tokens": 120}
    here = llm.chat(ASKED, **options)

    async def ask():
        async with AsyncLLM(folder, EngineOptions(threads=1, max_sequences=4, context_len=4096)) as others:
            streams = [others.chat(ASKED, **options, logprobs=logprobs) for logprobs in (None, 1)]
            return [await stream.completion() for stream in streams]

    for there in asyncio.run(ask()):
        assert there.token_ids == here.token_ids
        assert [call.arguments for call in there.tool_calls] == [call.arguments for call in here.tool_calls]


def test_what_a_call_is_not_held_to_is_told(llm):
    tool = {"type": "function", "function": {"name": "odd", "parameters": {"properties": {"x": {"type": "oddity"}}}}}
    completion = llm.chat(ASKED, think=False, tools=[tool], seed=1, max_tokens=5)
    assert "odd.x" in completion.stats.loose
