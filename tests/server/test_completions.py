"""/v1/completions and the tokenizer's routes."""

import json
import shutil
from pathlib import Path
from typing import Any

import openai
import pytest

from qwick import pocket
from tests.server.running import Running, serving

ROOT = Path(__file__).parents[2]
GREEDY: Any = {"model": "pocket", "temperature": 0}


def test_texts_and_ids_continue_alike(client: openai.OpenAI, server: Running) -> None:
    ids = server.ask("/tokenize", {"prompt": "What is"})[1]["tokens"]
    text = client.completions.create(**GREEDY, prompt="What is").choices[0].text
    assert client.completions.create(**GREEDY, prompt=ids).choices[0].text == text
    several = client.completions.create(**GREEDY, prompt=["What is", "Reverse"], n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in several.choices[:2]] == [text, text]
    assert client.completions.create(**GREEDY, prompt=[ids, ids]).choices[1].text == text


@pytest.mark.parametrize("more", [{}, {"echo": True}, {"logprobs": 2}, {"echo": True, "logprobs": 1}, {"n": 2}])
def test_a_stream_says_what_the_whole_says(client: openai.OpenAI, more: Any) -> None:
    whole = client.completions.create(**GREEDY, prompt="What is 3", **more)
    texts, tokens = dict[int, str](), list[str]()
    for chunk in client.completions.create(**GREEDY, prompt="What is 3", stream=True, **more):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            tokens += choice.logprobs.tokens or [] if choice.logprobs else []
    assert texts == {choice.index: choice.text for choice in whole.choices}
    if "logprobs" in more:
        assert whole.choices[0].logprobs
        assert tokens == whole.choices[0].logprobs.tokens


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_a_prompt_is_scored_as_evaluations_ask(client: openai.OpenAI, server: Running, max_tokens: int) -> None:
    ids = server.ask("/tokenize", {"prompt": "What is 17 + 25?"})[1]["tokens"]
    asked: Any = {**GREEDY, "prompt": [ids], "echo": True, "logprobs": 1, "max_tokens": max_tokens}
    answer = client.completions.create(**asked)
    found = answer.choices[0].logprobs
    assert found
    assert found.token_logprobs
    assert found.top_logprobs
    assert len(found.token_logprobs) == len(ids) + max_tokens == len(found.tokens or ())
    assert found.token_logprobs[0] is None
    assert answer.choices[0].text.startswith("What is 17 + 25?")
    assert "".join(found.tokens or ()) == answer.choices[0].text
    for logprob, top in zip(found.token_logprobs[1:], found.top_logprobs[1:], strict=True):
        assert max(top.values()) >= logprob
    assert answer.usage
    assert answer.usage.completion_tokens == max_tokens


def test_sixteen_tokens_unless_told_otherwise(client: openai.OpenAI) -> None:
    answer = client.completions.create(**GREEDY, prompt="What", extra_body={"logit_bias": {"0": 0}})
    assert answer.usage
    assert answer.usage.completion_tokens <= 16


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": []},
        {"prompt": ""},
        {"prompt": [[]]},
        {"prompt": [1, "x"]},
        {"prompt": [1 << 40]},
        {"prompt": [9_999_999]},
        {"prompt": "x", "suffix": "y"},
        {"prompt": "x", "max_tokens": 0},
        {"prompt": "x", "best_of": 3},
        {"prompt": ["x"] * 100, "n": 32},
        {"prompt": "x", "messages": []},
        {"prompt": "x", "regex": "("},
        {"prompt": "x", "regex": "a", "guided_regex": "a"},
        {"prompt": "x", "stream_options": {"include_usage": True}},
    ],
)
def test_what_is_wrong_is_said(server: Running, body: Any) -> None:
    status, answer, _ = server.ask("/v1/completions", body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


WAYS: list[Any] = [
    {"regex": "(yes|no)"},
    {"guided_choice": ["yes", "no"]},
    {"guided_regex": "yes|no"},
    {"grammar": 'root ::= "yes" | "no"'},
    {"guided_grammar": 'start: "yes" | "no"'},
    {"structured_outputs": {"choice": ["yes", "no"]}},
]


@pytest.mark.parametrize("way", WAYS)
def test_a_continuation_of_a_form(client: openai.OpenAI, way: Any) -> None:
    asked: Any = {**GREEDY, "prompt": "Is it?", "max_tokens": 30, "extra_body": way}
    answer = client.completions.create(**asked).choices[0]
    assert (answer.text in {"yes", "no"}, answer.finish_reason) == (True, "stop")
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)) == answer.text


def test_choices_are_taken_letter_by_letter(client: openai.OpenAI) -> None:
    for text in ("a.c (x|y)\\d+ {1}", 'say "hi"', "Grüße & 世界", "- #~"):
        asked: Any = {**GREEDY, "prompt": "x", "max_tokens": 60, "extra_body": {"guided_choice": [text]}}
        assert client.completions.create(**asked).choices[0].text == text


def test_a_continuation_by_a_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"], "additionalProperties": False}
    for way in (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}},
        {"json_schema": schema},
        {"guided_json": schema},
    ):
        asked: Any = {**GREEDY, "prompt": "x", "max_tokens": 60, "n": 2, "extra_body": way}
        answer = client.completions.create(**asked)
        assert [json.loads(choice.text) for choice in answer.choices] == [{"n": 7}, {"n": 7}]


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CHAT = [{"role": "user", "content": "What is 17 + 25?"}]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"enable_thinking": False},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"reasoning_effort": "low"},
        {"messages": [*CHAT, {"role": "assistant", "content": "It is"}], "continue_final_message": True},
    ],
)
def test_a_prompt_has_the_ids_that_a_chat_is_asked_with(server: Running, more: Any) -> None:
    check_ids(server, {"messages": CHAT, **more})


def test_so_has_one_with_tools(tmp_path: Path) -> None:
    """Pocket's network behind the template of the released models: what it says does not matter."""
    folder = tmp_path / "model"
    shutil.copytree(pocket.FOLDER, folder)
    shutil.copy(ROOT / "tests" / "text" / "templates" / "qwen3.5_4b_9b.jinja", folder / "chat_template.jinja")
    with serving(tmp_path, model=str(folder)) as server:
        bare = check_ids(server, {"messages": CHAT})
        off = check_ids(server, {"messages": CHAT, "enable_thinking": False})
        offered = check_ids(server, {"messages": CHAT, "tools": [TOOL]})
        forced = {"tool_choice": "required", "enable_thinking": False}
        required = check_ids(server, {"messages": CHAT, "tools": [TOOL], **forced})
        named = {**forced, "tool_choice": {"type": "function", "function": {"name": "add"}}}
        assert check_ids(server, {"messages": CHAT, "tools": [TOOL], **named}) == required
        assert check_ids(server, {"messages": CHAT, "tools": [TOOL], "tool_choice": "none"}) == offered
    assert len({bare, off, offered, required}) == 4


def check_ids(server: Running, body: Any) -> int:
    """Of a chat: as many tokens as /tokenize gives, and so many they are."""
    status, chat, _ = server.ask("/v1/chat/completions", {**body, "max_tokens": 1})
    assert status == 200, chat
    found = server.ask("/tokenize", body)[1]
    assert found["count"] == len(found["tokens"]) == chat["usage"]["prompt_tokens"]
    return found["count"]


def test_the_pieces_of_a_text(server: Running) -> None:
    found = server.ask("/tokenize", {"prompt": "What is 17?", "return_token_strs": True})[1]
    assert "".join(found["token_strs"]) == "What is 17?"
    assert len(found["token_strs"]) == found["count"]


def test_tokens_and_back(server: Running) -> None:
    text = "Grüße, 世界 🙂"
    found = server.ask("/tokenize", {"content": text})[1]
    assert found["count"] == len(found["tokens"])
    assert server.ask("/detokenize", {"tokens": found["tokens"]})[1]["content"] == text
    for path, body in (
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "x", "content": "x"}),
        ("/tokenize", {"prompt": "x", "enable_thinking": True}),
        ("/detokenize", {"tokens": [1 << 30]}),
    ):
        assert server.ask(path, body)[0] == 400
