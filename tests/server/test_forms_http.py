"""Answers of a form over HTTP: schemas and grammars, behind thoughts, and against the model's will."""

import json
import re
from typing import Any

import openai
import pytest

from tests.server.running import Running
from tests.server.scripted_asking import both, say

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "sex": {"enum": ["f", "m"]}},
    "required": ["name", "age", "sex"],
    "additionalProperties": False,
}
ADA = {"name": "Ada Lovelace", "age": 36, "sex": "f"}
GBNF = 'root ::= item+\nitem ::= "- " [a-z]+ "\\n"\n'
LARK = "start: item+\nitem: /- [a-z]+\\n/\n"
LIST = "- one\n- two\n"
OFF: Any = {"enable_thinking": False}


def form(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "form", "schema": schema, "strict": True}}


@pytest.mark.parametrize("spaces", [None, (",", ":"), (" , ", " : ")])
@pytest.mark.parametrize("thought", ["", "Ada, then.\n</think>\n\n", "Ada, then.</think>"])
def test_a_schema_behind_a_thought(scripted_client: openai.OpenAI, thought: str, spaces: Any) -> None:
    """However the model would space it, it comes as one line; names are not left to the model."""
    script = thought + json.dumps(ADA, separators=spaces)
    more = {"enable_thinking": bool(thought)}
    said = both(scripted_client, say(script), response_format=form(PERSON), extra_body=more)
    assert said.content == json.dumps(ADA)
    assert (said.reasoning, said.finish) == ("Ada, then." if thought else "", "stop")


def test_a_model_that_would_say_something_else(scripted_client: openai.OpenAI) -> None:
    for script in ("Sure! Here is Ada.", "[1, 2]", "", '{"age": "old", "name": 7}', "```json\n{}\n```"):
        said = both(scripted_client, say(script), response_format=form(PERSON), extra_body=OFF, max_tokens=200)
        value = json.loads(said.content)
        assert list(value) == ["name", "age", "sex"]
        assert [type(each) for each in value.values()] == [str, int, str]
        assert value["sex"] in {"f", "m"}
        assert said.finish == "stop"


def test_an_answer_that_would_end_inside_its_thought(scripted_client: openai.OpenAI) -> None:
    said = both(scripted_client, say("I am done."), response_format=form(PERSON), max_tokens=200)
    assert said.reasoning == "I am done."
    assert set(json.loads(said.content)) == set(ADA)


def test_any_object(scripted_client: openai.OpenAI) -> None:
    for script, value in (('{"a":[1,{"b":null}]}', {"a": [1, {"b": None}]}), ("Hm.\n</think>\n\n{}", {})):
        said = both(scripted_client, say(script), response_format={"type": "json_object"}, extra_body=OFF)
        assert json.loads(said.content) == value
    said = both(scripted_client, say("no object"), response_format={"type": "json_object"}, extra_body=OFF)
    assert isinstance(json.loads(said.content), dict)


def test_text_is_no_form(scripted_client: openai.OpenAI) -> None:
    assert both(scripted_client, say("a text"), response_format={"type": "text"}, extra_body=OFF).content == "a text"


@pytest.mark.parametrize("script", [LIST, f"Two of them.\n</think>\n\n{LIST}", "One and two.", "- ONE\n- two!\n"])
@pytest.mark.parametrize("grammar", [{"grammar": GBNF}, {"grammar": LARK}, {"regex": "(- [a-z]+\n)+"}])
def test_grammars(scripted_client: openai.OpenAI, grammar: Any, script: str) -> None:
    thinks = "</think>" in script
    said = both(scripted_client, say(script), max_tokens=60, extra_body={**grammar, "enable_thinking": thinks})
    if said.finish == "stop":
        assert re.fullmatch("(- [a-z]+\n)+", said.content)
    else:
        assert re.fullmatch("(- [a-z]+\n)*(- ?|- [a-z]+)?", said.content)
    if LIST in script:
        assert (said.content, said.finish) == (LIST, "stop")
    assert said.reasoning == ("Two of them." if thinks else "")


def test_one_of_two_words(scripted_client: openai.OpenAI) -> None:
    for script, word in (("yes", "yes"), ("no, never", "no"), ("Yes.", None)):
        for more in ({"regex": "yes|no"}, {"grammar": 'root ::= "yes" | "no"'}, {"grammar": 'start: "yes" | "no"'}):
            said = both(scripted_client, say(script), extra_body=OFF | more)
            assert said.content == word if word else said.content in {"yes", "no"}
            assert said.finish == "stop"


def test_forms_of_several_at_once(scripted_client: openai.OpenAI) -> None:
    """Each choice has a grammar of its own, and may go its own way through it."""
    people = [{"name": name, "age": age, "sex": sex} for name, age, sex in (("Ada", 36, "f"), ("Alan", 41, "m"))]
    body = say(*map(json.dumps, people)) | {"temperature": 1, "seed": 2, "n": 6, "extra_body": OFF}
    answer = scripted_client.chat.completions.create(**body, response_format=form(PERSON))
    texts = {choice.index: choice.message.content or "" for choice in answer.choices}
    assert {json.loads(text)["name"] for text in texts.values()} == {"Ada", "Alan"}
    assert all(json.loads(text) in people for text in texts.values())
    found = dict.fromkeys(texts, "")
    for chunk in scripted_client.chat.completions.create(**body, response_format=form(PERSON), stream=True):
        for choice in chunk.choices:
            found[choice.index] += choice.delta.content or ""
    assert found == texts


def test_a_budget_and_a_schema_together(scripted_client: openai.OpenAI) -> None:
    script = f"{'So many things to think of. ' * 7}\n</think>\n\n{json.dumps(ADA)}"
    said = both(scripted_client, say(script), response_format=form(PERSON), extra_body={"thinking_budget": 12})
    assert json.loads(said.content) == ADA
    assert said.reasoning.count("So many") < 4


def test_stops_count_in_a_form_too(scripted_client: openai.OpenAI) -> None:
    said = both(scripted_client, say(LIST), stop=["two"], extra_body=OFF | {"grammar": GBNF})
    assert (said.content, said.finish) == ("- one\n- ", "stop")


def test_what_is_cut_says_so(scripted_client: openai.OpenAI) -> None:
    said = both(scripted_client, say(json.dumps(ADA)), response_format=form(PERSON), extra_body=OFF, max_tokens=8)
    assert said.finish == "length"
    assert json.dumps(ADA).startswith(said.content)


@pytest.mark.parametrize(
    "wrong",
    [
        {"regex": "("},
        {"grammar": "root ::= nothing"},
        {"grammar": "start: NOTHING"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}},
        {"regex": "a", "grammar": GBNF},
    ],
)
def test_a_wrong_form_is_refused_before_anything_is_said(scripted_server: Running, wrong: Any) -> None:
    for stream in (False, True):
        status, answer, _ = scripted_server.ask("/v1/chat/completions", say("x") | wrong | {"stream": stream})
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert answer["error"]["message"]
