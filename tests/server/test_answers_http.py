"""Stops, choices and log-probabilities over HTTP, of answers that are known beforehand."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.server.running import Running
from tests.server.scripted_asking import TOOLS, both, call, say, streamed, whole

OFF: Any = {"enable_thinking": False}
TEXT = "one two three, END of it. Grüße aus Köln: 日本 👩‍👩‍👧 done"


@pytest.mark.parametrize(
    ("stop", "content"),
    [
        ("three", "one two "),
        ("ee, EN", "one two thr"),
        (["nothing", "ße au"], "one two three, END of it. Grü"),
        (["END of it. G", "of"], "one two three, END "),
        ("日", "one two three, END of it. Grüße aus Köln: "),
        ("本 👩", "one two three, END of it. Grüße aus Köln: 日"),
        ("not there", TEXT),
        ("donee", TEXT),
    ],
)
def test_stops_across_tokens(scripted_client: openai.OpenAI, stop: Any, content: str) -> None:
    said = both(scripted_client, say(TEXT), stop=stop, extra_body=OFF)
    assert (said.content, said.finish) == (content, "stop")


def test_stops_do_not_count_in_the_thought(scripted_client: openai.OpenAI) -> None:
    said = both(scripted_client, say(f"The END is near.\n</think>\n\n{TEXT}"), stop=["END"])
    assert (said.reasoning, said.content) == ("The END is near.", "one two three, ")


def test_a_token_that_ends_the_answer(scripted_client: openai.OpenAI, scripted_server: Running) -> None:
    (token_id,) = scripted_server.ask("/tokenize", {"prompt": " three"})[1]["tokens"]
    said = both(scripted_client, say(TEXT), extra_body=OFF | {"stop_token_ids": [token_id]})
    assert (said.content, said.finish) == ("one two", "stop")


def test_characters_of_several_tokens_come_whole(scripted_client: openai.OpenAI) -> None:
    for chunk in scripted_client.chat.completions.create(**say(TEXT), extra_body=OFF, stream=True):
        for choice in chunk.choices:
            assert "\N{REPLACEMENT CHARACTER}" not in (choice.delta.content or "")


def test_choices_go_their_own_ways(scripted_client: openai.OpenAI) -> None:
    body = say("Heads it is.", "Tails it is.", "It stands!") | {"temperature": 1, "seed": 7, "n": 8, "extra_body": OFF}
    answer = scripted_client.chat.completions.create(**body)
    texts = {choice.index: choice.message.content for choice in answer.choices}
    assert set(texts.values()) == {"Heads it is.", "Tails it is.", "It stands!"}
    assert sorted(texts) == list(range(8))
    found, ends = dict.fromkeys(texts, ""), dict.fromkeys(texts, 0)
    for chunk in scripted_client.chat.completions.create(**body, stream=True):
        for choice in chunk.choices:
            found[choice.index] += choice.delta.content or ""
            ends[choice.index] += choice.finish_reason == "stop"
    assert found == texts
    assert set(ends.values()) == {1}
    assert answer.usage
    assert answer.usage.completion_tokens >= 8 * 4


def test_two_choices_are_both_there(scripted_client: openai.OpenAI) -> None:
    answer = scripted_client.chat.completions.create(**say("Hm.\n</think>\n\nBoth say so."), n=2)
    assert [choice.message.content for choice in answer.choices] == ["Both say so."] * 2
    assert [getattr(choice.message, "reasoning_content", None) for choice in answer.choices] == ["Hm."] * 2


def test_logprobs_are_of_every_token(scripted_client: openai.OpenAI) -> None:
    """Of the thought's, of the tags', and of those of a call: together they spell what the model wrote."""
    ulm = call("weather", city="Ulm")
    script = f"I look.\n</think>\n\nSo:\n\n{ulm}"
    options: Any = {"logprobs": True, "top_logprobs": 2, "tools": TOOLS}
    answer = scripted_client.chat.completions.create(**say(script), **options)
    found = answer.choices[0].logprobs
    assert found
    assert found.content
    raw = b"".join(bytes(entry.bytes or ()) for entry in found.content)
    assert raw.decode() == script
    assert all(entry.logprob == pytest.approx(0, abs=1e-6) for entry in found.content)
    assert all(len(entry.top_logprobs) == 2 for entry in found.content)
    assert all(entry.top_logprobs[0].token == entry.token for entry in found.content)
    assert answer.usage
    assert len(found.content) == answer.usage.completion_tokens
    chunks = list(scripted_client.chat.completions.create(**say(script), **options, stream=True))
    pieces = [choice.logprobs.content or [] for chunk in chunks for choice in chunk.choices if choice.logprobs]
    assert [entry for piece in pieces for entry in piece] == found.content


def test_logprobs_of_what_is_as_likely(scripted_client: openai.OpenAI) -> None:
    body = say("yes", "no") | {"temperature": 1, "seed": 1, "logprobs": True, "top_logprobs": 3, "extra_body": OFF}
    found = scripted_client.chat.completions.create(**body).choices[0].logprobs
    assert found
    first = (found.content or [])[0]
    assert first.logprob == pytest.approx(-math.log(2))
    assert {each.token for each in first.top_logprobs[:2]} == {"yes", "no"}
    assert first.top_logprobs[2].logprob < -10


def test_a_forced_token_has_the_models_own_logprob(scripted_client: openai.OpenAI) -> None:
    """A grammar's words count as what the model thinks of them: little."""
    body = say("something else") | {"logprobs": True, "extra_body": OFF | {"regex": "never this"}}
    choice = scripted_client.chat.completions.create(**body).choices[0]
    assert choice.message.content == "never this"
    assert choice.logprobs
    entries = choice.logprobs.content or []
    assert b"".join(bytes(entry.bytes or ()) for entry in entries) == b"never this"
    assert entries[0].logprob < -10


def test_a_bias_changes_what_is_said(scripted_client: openai.OpenAI, scripted_server: Running) -> None:
    body = say("Heads.", "Tails.") | {"extra_body": OFF}
    first = whole(scripted_client, body).content
    (token_id, *_) = scripted_server.ask("/tokenize", {"prompt": first})[1]["tokens"]
    other = both(scripted_client, body, logit_bias={str(token_id): -100}).content
    assert {first, other} == {"Heads.", "Tails."}
    assert both(scripted_client, body, logit_bias={str(token_id): 40}, temperature=1).content == first


def test_usage_is_the_same_whole_and_streamed(scripted_client: openai.OpenAI) -> None:
    found, other = whole(scripted_client, say(TEXT)), streamed(scripted_client, say(TEXT))
    assert found.usage.completion_tokens == other.usage.completion_tokens
    assert found.usage.prompt_tokens == other.usage.prompt_tokens
    assert other.usage.prompt_tokens_details.cached_tokens >= found.usage.prompt_tokens - 8


def test_many_chats_at_once_get_their_own(scripted_client: openai.OpenAI) -> None:
    """Streams that run side by side, of tools, thoughts and forms, are not mixed up."""

    def one(number: int) -> Any:
        name, script = f"City {number}", call("weather", city=f"City {number}", days=number)
        match number % 3:
            case 0:
                return streamed(scripted_client, say(script), tools=TOOLS, extra_body=OFF).arguments == [
                    ("weather", {"city": name, "days": number})
                ]
            case 1:
                return streamed(scripted_client, say(f"{name}?\n</think>\n\n{name}!")).reasoning == f"{name}?"
            case _:
                said = streamed(scripted_client, say(name), extra_body=OFF | {"regex": f"City {number}|Town"})
                return said.content == name

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(one, range(48))) == [True] * 48
