"""Loops of calls and results, and the official client's own helpers: pydantic models as tools and as answers."""

import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from tests.scripted.script import scripted
from tests.server.running import Running
from tests.server.scripted_asking import TOOLS, both, call, joined, say, whole

ULM, BONN = call("weather", city="Ulm"), call("weather", city="Bonn")
RULES = {"role": "system", "content": "You know the weather. Ask for it, then say it in one sentence."}


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    unit: Literal["C", "F"] = "C"
    days: int = Field(ge=1)


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]


ADA = Person(name="Ada", age=36, tags=["countess", "programmer"])
WEATHER = call("weather", city="Ulm", unit="F", days="2")


def at_leisure(server: Running, before: float) -> None:
    """Until the last answer was read as history."""
    server.until(lambda: server.metric("qwick_tokens_read_at_leisure_total") > before)
    server.until(lambda: server.metric("qwick_idle_jobs") == 0)


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_loop_reads_each_turns_own_part_only(
    scripted_client: openai.OpenAI, scripted_server: Running, is_streamed: bool, think: bool
) -> None:
    options: Any = {"model": "script", "tools": TOOLS, "temperature": 0, "extra_body": {"enable_thinking": think}}
    thought = "First one, then the other.\n</think>\n\n" if think else ""
    results = [f"22 degrees. {scripted(thought + BONN)}", f"20 degrees. {scripted(f'{thought}Ulm 22, Bonn 20.')}"]
    ask = f"Weather in Ulm and Bonn ({think}, {is_streamed})? "
    messages: list[Any] = [RULES, {"role": "user", "content": scripted(thought + ULM, before=ask)}]
    known = 0
    for result in [*results, None]:
        before = scripted_server.metric("qwick_tokens_read_at_leisure_total")
        message, used = turn(scripted_client, options | {"messages": messages}, is_streamed=is_streamed)
        if known:
            new = used.prompt_tokens - known
            assert used.prompt_tokens - used.prompt_tokens_details.cached_tokens <= new + 8
        known = used.total_tokens
        if result is None:
            break
        messages.append(message)
        messages.append({"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": result})
        at_leisure(scripted_server, before)
    assert message["content"] == "Ulm 22, Bonn 20."
    cities = [json.loads(each["tool_calls"][0]["function"]["arguments"])["city"] for each in messages[2::2]]
    assert cities == ["Ulm", "Bonn"]


def turn(client: openai.OpenAI, body: Any, *, is_streamed: bool) -> tuple[dict[str, Any], Any]:
    """The answer as the message that a client sends back."""
    if not is_streamed:
        answer = client.chat.completions.create(**body)
        return answer.choices[0].message.model_dump(exclude_none=True), answer.usage
    said = joined(client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for call_id, (name, arguments) in zip(said.ids, said.calls, strict=True)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": said.content, "reasoning_content": said.reasoning}
    return message | ({"tool_calls": calls} if calls else {}), said.usage


def test_results_of_two_calls_go_back_together(scripted_client: openai.OpenAI) -> None:
    message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
    messages: list[Any] = [{"role": "user", "content": "Ulm and Bonn?"}, message]
    for number, city in enumerate(("Ulm", "Bonn")):
        function = {"name": "weather", "arguments": json.dumps({"city": city})}
        message["tool_calls"].append({"id": f"call_{number}", "type": "function", "function": function})
        content = f"{20 + number} degrees" + (scripted(" It is warm. ") if number else "")
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": content})
    body = {"model": "script", "messages": messages, "temperature": 0, "extra_body": {"enable_thinking": False}}
    assert both(scripted_client, body, tools=TOOLS).content == " It is warm. "


def test_the_helper_for_streams_tells_of_text_and_calls(scripted_client: openai.OpenAI) -> None:
    body = say(f"Hm.\n</think>\n\nI ask.\n{WEATHER}") | {"tools": TOOLS}
    seen: dict[str, list[Any]] = {}
    with scripted_client.chat.completions.stream(**body) as stream:
        for event in stream:
            seen.setdefault(event.type, []).append(event)
        final = stream.get_final_completion()
    assert "".join(event.delta for event in seen["content.delta"]) == "I ask."
    (done,) = seen["tool_calls.function.arguments.done"]
    assert (done.name, json.loads(done.arguments)["city"]) == ("weather", "Ulm")
    deltas = seen["tool_calls.function.arguments.delta"]
    assert "".join(event.arguments_delta for event in deltas) == done.arguments
    (choice,) = final.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    assert choice.message.tool_calls[0].function.arguments == done.arguments


def test_pydantic_models_as_tools(scripted_client: openai.OpenAI) -> None:
    body = say(WEATHER) | {"tools": [openai.pydantic_function_tool(Weather, name="weather")]}
    body["extra_body"] = {"enable_thinking": False}
    wanted = Weather(city="Ulm", unit="F", days=2)
    message = scripted_client.chat.completions.parse(**body).choices[0].message
    assert [each.function.parsed_arguments for each in message.tool_calls or ()] == [wanted]
    with scripted_client.chat.completions.stream(**body) as stream:
        (choice,) = stream.get_final_completion().choices
    assert choice.message.tool_calls
    assert choice.message.tool_calls[0].function.parsed_arguments == wanted


@pytest.mark.parametrize("thought", ["", "Who is it?\n</think>\n\n"])
def test_pydantic_models_as_answers(scripted_client: openai.OpenAI, thought: str) -> None:
    body = say(thought + ADA.model_dump_json()) | {"extra_body": {"enable_thinking": bool(thought)}}
    (choice,) = scripted_client.chat.completions.parse(**body, response_format=Person).choices
    assert choice.message.parsed == ADA
    with scripted_client.chat.completions.stream(**body, response_format=Person) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion().choices[0].message
    assert final.parsed == ADA
    assert "".join(pieces) == final.content == choice.message.content
    assert getattr(final, "reasoning_content", None) == ("Who is it?" if thought else None)


def test_what_was_cut_is_not_parsed(scripted_client: openai.OpenAI) -> None:
    body = say(ADA.model_dump_json()) | {"extra_body": {"enable_thinking": False}, "max_tokens": 5}
    with pytest.raises(openai.LengthFinishReasonError):
        scripted_client.chat.completions.parse(**body, response_format=Person)


def test_a_call_may_be_sent_back_as_it_came(scripted_client: openai.OpenAI) -> None:
    """What a client keeps of an answer, extra fields and all, is taken as history."""
    answer = scripted_client.chat.completions.create(**say(f"Hm.\n</think>\n\n{ULM}"), tools=TOOLS)
    message = answer.choices[0].message
    result = {"role": "tool", "tool_call_id": (message.tool_calls or [])[0].id, "content": scripted("22.")}
    for kept in (message, message.model_dump(), message.model_dump(exclude_unset=True)):
        body: Any = {"model": "script", "messages": [{"role": "user", "content": "Ulm?"}, kept, result]}
        assert whole(scripted_client, body, tools=TOOLS, extra_body={"enable_thinking": False}).content == "22."
