"""/v1/chat/completions, asked by the official client over HTTP."""

import json
from typing import Any

import openai
import pytest

from tests.server.running import Running

QUESTION: list[Any] = [{"role": "user", "content": "What is 17 + 25?"}]
GREEDY: Any = {"model": "pocket", "messages": QUESTION, "temperature": 0}


def test_an_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**GREEDY)
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert "42" in (choice.message.content or "")
    assert (choice.finish_reason, choice.message.role, choice.index) == ("stop", "assistant", 0)
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("more", [{}, {"n": 3, "temperature": 1.0, "seed": 4}, {"logprobs": True, "top_logprobs": 2}])
def test_a_stream_says_what_the_whole_says(client: openai.OpenAI, more: Any) -> None:
    whole = client.chat.completions.create(**GREEDY | more)
    texts, reasons, roles, logprobs = dict[int, str](), dict[int, str](), list[str](), list[Any]()
    usage = None
    with client.chat.completions.create(**GREEDY | more, stream=True, stream_options={"include_usage": True}) as stream:
        for chunk in stream:
            assert chunk.object == "chat.completion.chunk"
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
                roles += [choice.delta.role] if choice.delta.role else []
                logprobs += choice.logprobs.content or [] if choice.logprobs else []
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert roles == ["assistant"] * len(whole.choices)
    if "logprobs" in more:
        assert whole.choices[0].logprobs
        assert logprobs == whole.choices[0].logprobs.content
        assert all(len(entry.top_logprobs) == 2 for entry in logprobs)
        assert "".join(entry.token for entry in logprobs) == texts[0]
    assert usage
    assert whole.usage
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_several_choices_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    def texts() -> list[str | None]:
        answer = client.chat.completions.create(
            **GREEDY | {"n": 4, "temperature": 5.0, "seed": 1, "max_tokens": 8}, extra_body={"top_k": -1, "min_p": 0.0}
        )
        return [choice.message.content for choice in answer.choices]

    first = texts()
    assert len(set(first)) > 1
    assert texts() == first


def test_choices_of_one_prompt_read_it_once(client: openai.OpenAI, server: Running) -> None:
    messages: list[Any] = [{"role": "user", "content": "Count to " + " and ".join(map(str, range(200, 300)))}]
    before, asked = server.metric("qwick_prompt_tokens_read_total"), {"model": "pocket", "messages": messages}
    answer = client.chat.completions.create(**asked, n=4, seed=3, temperature=3.0, max_tokens=4)
    assert answer.usage
    prompt = answer.usage.prompt_tokens
    assert prompt > 300
    assert prompt == client.chat.completions.create(**asked, max_tokens=1).usage.prompt_tokens  # type: ignore[union-attr]
    assert answer.usage.completion_tokens <= 16
    server.until(lambda: server.metric("qwick_requests_admitted") == 0)
    assert prompt <= server.metric("qwick_prompt_tokens_read_total") - before < 1.5 * prompt


def test_stop_and_max_tokens(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY).choices[0].message.content or ""
    end = whole[-1]
    stopped = client.chat.completions.create(**GREEDY, stop=[end]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (whole[: whole.index(end)], "stop")
    for name in ("max_tokens", "max_completion_tokens"):
        short = client.chat.completions.create(**GREEDY, **{name: 1})
        assert short.choices[0].finish_reason == "length"
        assert short.usage
        assert short.usage.completion_tokens == 1


def test_a_forbidden_token_does_not_come(client: openai.OpenAI, server: Running) -> None:
    asked = client.chat.completions.create(**GREEDY, logprobs=True).choices[0].logprobs
    assert asked
    assert asked.content
    text = asked.content[0].token
    _, found, _ = server.ask("/tokenize", {"prompt": text})
    (token_id,) = found["tokens"]
    other = (
        client.chat.completions.create(**GREEDY, logit_bias={str(token_id): -100}, logprobs=True).choices[0].logprobs
    )
    assert other
    assert other.content
    assert other.content[0].token != text


def test_the_answer_goes_on_from_its_beginning(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY).choices[0].message.content or ""
    begun = [*QUESTION, {"role": "assistant", "content": whole[:1]}]
    options: Any = {**GREEDY, "messages": begun, "extra_body": {"continue_final_message": True}}
    assert whole[:1] + (client.chat.completions.create(**options).choices[0].message.content or "") == whole


def test_developer_is_system_and_parts_are_text(server: Running) -> None:
    def tokens(system: Any, text: Any) -> list[int]:
        messages = [{"role": system, "content": "Be brief."}, {"role": "user", "content": text}]
        return server.ask("/tokenize", {"messages": messages})[1]["tokens"]

    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "17 + 25?"}]
    assert tokens("developer", parts) == tokens("system", "What is 17 + 25?")


def test_the_next_turn_reads_its_own_message_only(client: openai.OpenAI, server: Running) -> None:
    messages: list[Any] = [{"role": "user", "content": "Reverse the word lantern, which is a lamp to be carried. " * 4}]
    before = server.metric("qwick_tokens_read_at_leisure_total")
    answer = client.chat.completions.create(model="pocket", messages=messages, temperature=0)
    server.until(lambda: server.metric("qwick_tokens_read_at_leisure_total") > before)
    messages += [answer.choices[0].message.model_dump(exclude_none=True), *QUESTION]
    again = client.chat.completions.create(model="pocket", messages=messages, temperature=0)
    assert answer.usage
    assert again.usage
    assert again.usage.prompt_tokens_details
    assert again.usage.prompt_tokens_details.cached_tokens
    assert again.usage.prompt_tokens_details.cached_tokens >= answer.usage.prompt_tokens - 8


def test_why_a_prompt_was_not_in_memory(server: Running) -> None:
    body = {"messages": [{"role": "user", "content": "nothing like this was ever asked"}], "max_tokens": 1}
    _, answer, _ = server.ask("/v1/chat/completions", body)
    miss = answer["usage"]["prompt_tokens_details"]["cache_miss"]
    assert miss["reason"] in {"new", "diverged", "unsaved", "forgotten"}
    assert miss["message"]


@pytest.mark.parametrize(
    "switch",
    [
        {"enable_thinking": False},
        {"think": False},
        {"reasoning_effort": "none"},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_all_switches_of_thinking_are_one(server: Running, switch: Any) -> None:
    _, answer, _ = server.ask("/v1/chat/completions", {"messages": QUESTION, "temperature": 0, **switch})
    assert "42" in answer["choices"][0]["message"]["content"]


def test_habits_are_named_and_nothing_is_silent(server: Running) -> None:
    body = {"messages": QUESTION, "max_tokens": 1, "user": "me", "store": False, "service_tier": "auto"}
    status, answer, _ = server.ask("/v1/chat/completions", body)
    assert status == 200
    assert [warning.split()[0] for warning in answer["warnings"]] == ["user", "store", "service_tier"]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"audio": {}}, "audio"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"stop": ""}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, None),
        ({"enable_thinking": True, "reasoning_effort": "none"}, "enable_thinking"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content.0"),
        ({"chat_template_kwargs": {"lang": "en"}}, "chat_template_kwargs.lang"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"response_format": {"type": "nonsense"}}, "response_format"),
    ],
)
def test_what_is_wrong_is_named(server: Running, more: Any, param: str | None) -> None:
    status, answer, _ = server.ask("/v1/chat/completions", {"messages": QUESTION, **more})
    error = answer["error"]
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["message"]
    if param is not None:
        assert (error["param"] or "").startswith(param)


def test_a_prompt_that_does_not_fit_is_refused_as_openai_does(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "word " * 20_000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="pocket", messages=messages, stream=stream)
        assert refused.value.code == "context_length_exceeded"


def test_answers_of_a_form(client: openai.OpenAI, server: Running) -> None:
    schema = {"type": "object", "properties": {"sum": {"enum": [42]}}, "required": ["sum"]}
    schema |= {"additionalProperties": False}
    form: Any = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}}
    answer = client.chat.completions.create(**GREEDY, response_format=form, max_tokens=60)
    assert json.loads(answer.choices[0].message.content or "") == {"sum": 42}
    for more in ({"regex": "(yes|no)"}, {"grammar": 'root ::= "yes" | "no"'}, {"grammar": 'start: "yes" | "no"'}):
        _, found, _ = server.ask("/v1/chat/completions", {"messages": QUESTION, "max_tokens": 30, **more})
        assert found["choices"][0]["message"]["content"] in {"yes", "no"}
    for wrong in ({"regex": "("}, {"regex": "a", "grammar": "b"}, {"response_format": {"type": "json_schema"}}):
        assert server.ask("/v1/chat/completions", {"messages": QUESTION, **wrong})[0] == 400


def test_names_of_the_model(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"gpt-4o", "pocket"}
    assert client.models.retrieve("pocket").id == "pocket"
    client.chat.completions.create(**GREEDY | {"model": "gpt-4o", "max_tokens": 1})
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**GREEDY | {"model": "other"})
    assert unknown.value.code == "model_not_found"
