"""Tools as callers give them: what is refused, what is forced, how values become JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.errors import UsageError
from qwick.text.tool_arguments import TEXT_ONLY, ObjectScan, as_json, types_of
from qwick.text.tools import MAX_TOOL_BYTES, MAX_TOOLS, checked_tools, with_read_arguments
from tests.text.tool_call_cases import tool

ADD, SAVE = tool("add", a="integer"), tool("save", path="string")
NAMED = {"type": "function", "function": {"name": "save"}}
DEEP: dict[str, Any] = {}
for _ in range(5000):
    DEEP = {"properties": DEEP}


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": fields}


@pytest.mark.parametrize(
    ("tools", "complaint"),
    [
        ([3], r"tools\[0\] is no tool"),
        ([ADD, {"function": None}], r"tools\[1\] is no tool"),
        ([{"type": "web_search", "function": {"name": "x"}}], r"tools\[0\] is no tool"),
        ([function(name="")], r"tools\[0\] is named ''"),
        ([function(name="a>\n</tool_call>")], r"tools\[0\] is named"),
        ([function(name="x" * 129)], "128 letters"),
        ([function(name=3)], "is named 3"),
        ([function(name="f", description=3)], "description of the tool 'f'"),
        ([function(name="f", parameters="{}")], "parameters of the tool 'f'"),
        ([function(name="f", parameters={"x": float("nan")})], "'f' is no plain JSON"),
        ([function(name="f", parameters={"x": object()})], "'f' is no plain JSON"),
        ([function(name="f", parameters=DEEP)], "'f' is no plain JSON, or is nested"),
        ([function(name="f", description="x" * MAX_TOOL_BYTES)], "'f' takes .* bytes"),
        ([ADD, ADD], "two tools are named 'add'"),
        ([ADD] * (MAX_TOOLS + 1), "offer up to"),
    ],
)
def test_what_is_no_tool_is_refused_by_name(tools: list[Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        checked_tools(tools)


@pytest.mark.parametrize(
    ("tools", "choice", "complaint"),
    [
        ([], "required", "there are no tools"),
        ([ADD], NAMED, "names 'save', which is none"),
        ([], NAMED, "none of the tools"),
        ([ADD], "add", "tool_choice is 'add'; give auto"),
        ([ADD], None, "tool_choice is None"),
        ([ADD], {"type": "function"}, "tool_choice is"),
        ([ADD], {"type": "x", "function": {"name": "add"}}, "tool_choice is"),
        ([ADD], function(name=["add"]), "names"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(tools: list[Any], choice: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        checked_tools(tools, choice)


def test_what_is_forced() -> None:
    both = [ADD, SAVE]
    assert checked_tools(both).beginning == checked_tools(both, "none").beginning == ""
    assert checked_tools(both, "required").beginning == "<tool_call>\n<function"
    assert checked_tools([ADD], "required").beginning == "<tool_call>\n<function=add>\n"
    named = checked_tools(both, NAMED)
    assert (named.beginning, named.parallel) == ("<tool_call>\n<function=save>\n", False)
    assert checked_tools(both, "required").parallel
    assert not checked_tools(both, "none").may_call
    assert not checked_tools([]).may_call


def test_arguments_that_are_texts_are_read() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": [1]}'}}
    bare = {"name": "add", "arguments": ""}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [call, bare]}]
    read = with_read_arguments(messages)
    assert read[0] == messages[0]
    assert read[1]["tool_calls"][0]["function"]["arguments"] == {"a": [1]}
    assert read[1]["tool_calls"][1]["arguments"] == {}
    assert call["function"] == {"name": "add", "arguments": '{"a": [1]}'}  # the caller's own stay


@pytest.mark.parametrize("arguments", ["{", "[]", "5", "NaN", '{"a": NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_are_refused_by_place_and_name(arguments: str) -> None:
    call = {"function": {"name": "add", "arguments": arguments}}
    with pytest.raises(UsageError, match=r"messages\[1\].tool_calls\[0\] \('add'\) are no JSON object"):
        with_read_arguments([{"role": "user"}, {"role": "assistant", "tool_calls": [call]}])


SCHEMA = {
    "$defs": {"Count": {"type": "integer"}, "a/b": {"type": "null"}, "Loop": {"$ref": "#/$defs/Loop"}},
    "properties": {
        "one": {"type": "string"},
        "two": {"type": ["integer", "null"]},
        "any": {"anyOf": [{"type": "number"}, {"oneOf": [{"type": "boolean"}]}]},
        "all": {"allOf": [{"$ref": "#/$defs/Count"}]},
        "ref": {"anyOf": [{"$ref": "#/$defs/Count"}, {"$ref": "#/$defs/a~1b"}]},
        "loop": {"$ref": "#/$defs/Loop"},
        "away": {"$ref": "https://example.org/schema"},
        "old": {"type": "integer", "nullable": True},
        "enum": {"enum": [1, None, 2.5, True, "x", [], {}]},
        "const": {"const": 5},
        "silent": {"description": "anything"},
        "wrong": {"type": 5, "anyOf": 3},
        "bool": True,
    },
    "additionalProperties": {"type": "array"},
}


@pytest.mark.parametrize(
    ("key", "types"),
    [
        ("one", "string"),
        ("two", "integer null"),
        ("any", "number boolean"),
        ("all", "integer"),
        ("ref", "integer null"),
        ("loop", "string"),
        ("away", "string"),
        ("old", "integer null"),
        ("enum", "integer null number boolean string array object"),
        ("const", "integer"),
        ("silent", "string"),
        ("wrong", "string"),
        ("bool", "string"),
        ("other", "array"),
    ],
)
def test_the_types_that_a_schema_allows(key: str, types: str) -> None:
    assert types_of(SCHEMA, key) == set(types.split())


def test_without_a_schema_all_is_text() -> None:
    for schema in ({}, {"properties": []}, {"properties": {"a": None}}, {"additionalProperties": False}):
        assert types_of(schema, "a") == TEXT_ONLY


def test_a_schema_that_refers_to_itself_many_times_is_read_once() -> None:
    part = {"anyOf": [{"$ref": "#/$defs/A"}] * 200}
    assert types_of({"$defs": {"A": part}, "properties": {"a": part}}, "a") == TEXT_ONLY


@pytest.mark.parametrize(
    ("text", "types", "value"),
    [
        ("5", "integer", "5"),
        (" -12\n", "integer", "-12"),
        ("5.0", "integer", "5"),
        ("5.5", "integer", '"5.5"'),
        ("007", "integer", '"007"'),
        ("1_000", "integer", '"1_000"'),
        ("٣", "integer", '"٣"'),
        ("9" * 500, "integer", '"' + "9" * 500 + '"'),
        ("123456789012345678901234567890", "integer", "123456789012345678901234567890"),
        ("5", "number", "5"),
        ("1.50", "number", "1.50"),
        ("1e400", "number", '"1e400"'),
        ("NaN", "number", '"NaN"'),
        (".5", "number", '".5"'),
        ("true", "boolean", "true"),
        ("False", "boolean", "false"),
        ("yes", "boolean", '"yes"'),
        ("1", "boolean", '"1"'),
        ("null", "null integer", "null"),
        ("None", "null integer", "null"),
        ("null", "integer", '"null"'),
        ('{"a": 1,"b":[]}', "object", '{"a": 1, "b": []}'),
        ("[1]", "object", '"[1]"'),
        ("[1, 2", "array", '"[1, 2"'),
        ("[NaN]", "array", '"[NaN]"'),
        ("[" * 100_000, "array", '"' + "[" * 100_000 + '"'),
        ('["\\ud800"]', "array", '["\\ud800"]'),
        ("{'a': 1}", "object", "\"{'a': 1}\""),
        ("5", "string integer", "5"),
        ("5 a", "string integer", '"5 a"'),
        ("null", "string null", "null"),
        ("5", "string", '"5"'),
        (" a\n", "integer", '" a\\n"'),
        ("", "integer", '""'),
    ],
)
def test_a_value_becomes_what_its_schema_allows_or_stays_a_text(text: str, types: str, value: str) -> None:
    found = as_json(text, frozenset(types.split()))
    assert found == value
    json.loads(found)


@given(
    st.text('{}[]"\\a1,: n', max_size=30), st.sets(st.sampled_from(["object", "array", "number", "null", "boolean"]))
)
def test_any_text_becomes_json_that_can_be_sent(text: str, types: set[str]) -> None:
    found = as_json(text, frozenset(types))
    value = json.loads(found)
    found.encode()
    assert value == text or not isinstance(value, str)


JSONS = st.recursive(
    st.one_of(st.none(), st.text('{}[]"\\ab', max_size=6), st.integers()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text('{}"\\', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text('a"\\', max_size=3), JSONS, max_size=4), st.sampled_from(["", "}", '{"', "\n</tool_call>"])
)
def test_the_end_of_an_object_is_found_as_it_grows(value: dict[str, Any], rest: str) -> None:
    text = json.dumps(value)
    scan = ObjectScan()
    for length in range(len(text)):
        assert scan.end(text[:length]) is None
    assert scan.end(text + rest) == len(text)
    assert ObjectScan().end(text + rest) == len(text)
