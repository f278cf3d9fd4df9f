"""Tools over HTTP, asked by the official client: who may call, what comes of a call, whole and streamed."""

import json
from typing import Any

import openai
import pytest

from tests.server.running import Running
from tests.server.scripted_asking import TOOLS, both, call, say, streamed, whole

ULM, BONN = call("weather", city="Ulm", days=3), call("weather", city="Bonn")
OFF: Any = {"tools": TOOLS, "extra_body": {"enable_thinking": False}}


def named(name: str) -> Any:
    return {"type": "function", "function": {"name": name}}


def test_a_call(scripted_client: openai.OpenAI) -> None:
    said = both(scripted_client, say(f"I look.\n</think>\n\n{ULM}"), tools=TOOLS)
    assert said.arguments == [("weather", {"city": "Ulm", "days": 3})]
    assert (said.reasoning, said.content, said.finish) == ("I look.", "", "tool_calls")


def test_content_is_null_beside_calls_alone(scripted_client: openai.OpenAI) -> None:
    message = scripted_client.chat.completions.create(**say(ULM), **OFF).choices[0].message
    assert message.content is None
    assert message.tool_calls


def test_two_calls_at_once(scripted_client: openai.OpenAI) -> None:
    for body in (say(f"{ULM}\n{BONN}"), say(ULM + BONN), say(f"<think>\n\n</think>\n\n{ULM}\n\n{BONN}\n")):
        said = both(scripted_client, body, **OFF)
        assert said.arguments == [("weather", {"city": "Ulm", "days": 3}), ("weather", {"city": "Bonn"})]
        assert (said.content, said.finish) == ("", "tool_calls")
        assert len(set(said.ids)) == 2


def test_ids_are_of_one_call_each(scripted_client: openai.OpenAI) -> None:
    ids = {each for _ in range(3) for each in whole(scripted_client, say(ULM + BONN), **OFF).ids}
    assert len(ids) == 6
    assert all(each.startswith("call_") for each in ids)


def test_one_call_only(scripted_client: openai.OpenAI) -> None:
    """The answer ends behind the first, though the model would go on."""
    said = both(scripted_client, say(f"{ULM}\n{BONN}"), **OFF, parallel_tool_calls=False)
    assert said.arguments == [("weather", {"city": "Ulm", "days": 3})]
    assert said.finish == "tool_calls"


def test_text_before_a_call(scripted_client: openai.OpenAI) -> None:
    said = both(scripted_client, say(f"Let me see.\n\n{ULM}"), **OFF)
    assert (said.content, said.finish) == ("Let me see.", "tool_calls")
    assert said.arguments == [("weather", {"city": "Ulm", "days": 3})]


def test_no_call_needs_to_be_made(scripted_client: openai.OpenAI) -> None:
    said = both(scripted_client, say("Hello. A tag <b>like</b> this is text."), **OFF)
    assert (said.content, said.calls, said.finish) == ("Hello. A tag <b>like</b> this is text.", [], "stop")


def test_none_forbids_calls(scripted_client: openai.OpenAI) -> None:
    """The token that begins one cannot come; nothing is read as a call, even where the tag is spelled out."""
    said = both(scripted_client, say(f"Hm.\n</think>\n\nFine. {ULM}"), tools=TOOLS, tool_choice="none")
    assert (said.calls, said.finish) == ([], "stop")
    assert said.content.startswith("Fine. ")


@pytest.mark.parametrize("choice", ["required", named("weather")])
def test_a_required_call_is_made_whatever_the_model_would_say(scripted_client: openai.OpenAI, choice: Any) -> None:
    """What the script would say before is passed over."""
    for script in (ULM, f"Well, maybe.\n\n{ULM}", f"I look.\n</think>\n\n{ULM}"):
        said = both(scripted_client, say(script), **OFF, tool_choice=choice)
        assert said.arguments == [("weather", {"city": "Ulm", "days": 3})]
        assert (said.content, said.finish) == ("", "tool_calls")


def test_a_named_tool_is_called_though_the_model_means_another(scripted_client: openai.OpenAI) -> None:
    script = call("weather", title="Emma", price="9.50")
    said = both(scripted_client, say(script), **OFF, tool_choice=named("book"))
    assert [name for name, _ in said.calls] == ["book"]
    assert said.finish == "tool_calls"


def test_required_may_be_several_and_named_is_one(scripted_client: openai.OpenAI) -> None:
    assert len(both(scripted_client, say(ULM + BONN), **OFF, tool_choice="required").calls) == 2
    assert len(both(scripted_client, say(ULM + BONN), **OFF, tool_choice=named("weather")).calls) == 1


def test_arguments_are_of_the_schemas_types(scripted_client: openai.OpenAI) -> None:
    values = {"title": "1984", "price": 9.5, "paid": True, "pages": [1, 2], "by": {"name": "George"}, "note": None}
    written = {"title": "1984", "price": "9.5", "paid": "True", "pages": "[1, 2]", "by": '{"name": "George"}'}
    said = both(scripted_client, say(call("book", **written, note="None")), **OFF)
    assert said.arguments == [("book", values)]


def test_texts_keep_every_character(scripted_client: openai.OpenAI) -> None:
    for text in ("a\n  b\tc\n\nd", 'x = "\\"\n', "日本 🙂 ß", "</b> <parameter> {", "", "5"):
        said = both(scripted_client, say(call("weather", city=text)), **OFF)
        assert said.arguments == [("weather", {"city": text})]


def test_arguments_come_as_they_grow(scripted_client: openai.OpenAI) -> None:
    """A long text in many pieces, each call's pieces behind its own name."""
    title = "word " * 60 + "end"
    said = streamed(scripted_client, say(call("book", title=title) + BONN), **OFF)
    assert said.arguments == [("book", {"title": title}), ("weather", {"city": "Bonn"})]
    assert len(said.pieces[0]) > 30
    assert max(map(len, said.pieces[0])) < 20


def test_the_choice_is_a_tool_that_is_there(scripted_server: Running) -> None:
    for wrong in ({"tool_choice": named("other")}, {"tool_choice": "required", "tools": []}, {"tool_choice": "any"}):
        body = say(ULM) | {"tools": TOOLS} | wrong
        status, answer, _ = scripted_server.ask("/v1/chat/completions", body)
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert "tool" in answer["error"]["message"]


def test_a_call_that_is_cut_says_so(scripted_client: openai.OpenAI) -> None:
    body = say(call("book", title="a long title of many words " * 10))
    full = whole(scripted_client, body, **OFF).calls[0][1]
    said = both(scripted_client, body, **OFF, max_tokens=30)
    assert said.finish == "length"
    assert [name for name, _ in said.calls] == ["book"]
    assert full.startswith(said.calls[0][1])
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(said.calls[0][1])


def test_tags_are_shown_to_nobody_wherever_an_answer_is_cut(scripted_client: openai.OpenAI) -> None:
    for choice, content in (("auto", "Hi."), ("required", "")):
        for length in range(2, 24):
            said = whole(scripted_client, say(f"Hi. {ULM}"), **OFF, tool_choice=choice, max_tokens=length)
            assert (said.content.strip(), said.finish) == (content, "length")


def test_stops_are_not_looked_for_in_arguments(scripted_client: openai.OpenAI) -> None:
    said = both(scripted_client, say(f"I ask.\n{ULM}"), **OFF, stop=["Ulm", "city"])
    assert said.arguments == [("weather", {"city": "Ulm", "days": 3})]
    said = both(scripted_client, say(f"I ask for Ulm.\n{ULM}"), **OFF, stop=["Ulm"])
    assert (said.content, said.calls, said.finish) == ("I ask for ", [], "stop")


def test_who_leaves_in_the_middle_of_a_call_ends_the_work(
    scripted_client: openai.OpenAI, scripted_server: Running
) -> None:
    before = scripted_server.metric("qwick_cancelled_requests_total")
    body = say(call("book", title="word " * 2500)) | OFF
    stream = scripted_client.chat.completions.create(**body, stream=True)
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.tool_calls:
            break
    stream.close()
    scripted_server.until(lambda: scripted_server.metric("qwick_cancelled_requests_total") > before)
    scripted_server.until(lambda: scripted_server.metric("qwick_requests_admitted") == 0)
    assert whole(scripted_client, say(ULM), **OFF).calls


def test_choices_have_calls_of_their_own(scripted_client: openai.OpenAI) -> None:
    body: Any = say(ULM, BONN) | OFF | {"temperature": 1, "n": 6, "seed": 5}
    answer = scripted_client.chat.completions.create(**body)
    wanted = {
        choice.index: [each.function.arguments for each in choice.message.tool_calls or ()] for choice in answer.choices
    }
    assert {tuple(found) for found in wanted.values()} == {('{"city": "Ulm", "days": 3}',), ('{"city": "Bonn"}',)}
    found = dict.fromkeys(wanted, "")
    for chunk in scripted_client.chat.completions.create(**body, stream=True):
        for choice in chunk.choices:
            for each in choice.delta.tool_calls or ():
                found[choice.index] += each.function.arguments
    assert {index: [text] for index, text in found.items()} == wanted
