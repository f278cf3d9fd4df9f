"""/v1/completions and the tokenizer's routes."""

from typing import Any

import openai
import pytest

from tests.server.running import Running

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
    ],
)
def test_what_is_wrong_is_said(server: Running, body: Any) -> None:
    status, answer, _ = server.ask("/v1/completions", body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


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
