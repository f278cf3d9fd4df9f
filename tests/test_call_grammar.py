"""The grammar of tool calls, on the embedded model's vocabulary: what it allows, and that all of it is read back."""

import json
import random
from pathlib import Path

import pytest
from llguidance import LLParserLimits

from qwick import constraining, pocket
from qwick.constraining import TokenConstraints
from qwick.engine.constraint import Grammar, GrammarKind
from qwick.text.call_grammar import calls_text
from qwick.text.segments import Segments
from qwick.text.tokenizer import Tokenizer
from qwick.text.tool_calls import ToolCalls
from qwick.text.tools import checked_tools

CITY = {"$ref": "#/$defs/city"}
BOOK = {
    "type": "object",
    "properties": {
        "where": {"type": "string"},
        "nights": {"type": "integer", "minimum": 1, "maximum": 30},
        "price": {"type": "number"},
        "ok": {"type": "boolean"},
        "size": {"enum": ["small", "large", 3, None]},
        "guests": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
        "home": {"anyOf": [CITY, {"type": "null"}]},
        "kind": {"$ref": "#/$defs/kind"},
    },
    "required": ["where", "nights"],
    "$defs": {
        "city": {
            "type": "object",
            "properties": {"zip": {"type": "string", "pattern": "^[0-9]{3}$"}, "in": CITY},
            "required": ["zip"],
            "additionalProperties": False,
        },
        "kind": {"type": "string", "enum": ["a b", "<c>\nd", ""]},
    },
}
TOOLS = {
    "book": BOOK,
    "now": {},
    "note": {"properties": {"text": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
    "any": {"anyOf": [BOOK]},
    "wide": {"properties": {f"p{i}": {"type": "boolean"} for i in range(70)}, "required": ["p3"]},
}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.open(Path(pocket.FOLDER))


@pytest.fixture(scope="module")
def constraints(tokenizer):
    return TokenConstraints(lambda: tokenizer, tokenizer.num_tokens)


@pytest.fixture
def begin(constraints, tokenizer, monkeypatch):
    monkeypatch.setattr(constraining, "MOST_SECONDS", 20.0)  # machines of tests are busy
    end = tokenizer.added_tokens["</tool_call>"]
    return lambda tools=TOOLS: constraints.start(Grammar(GrammarKind.CALLS, calls_text(tools, end)))


def parameter(key, value):
    return f"<parameter={key}>\n{value}\n</parameter>\n"


def call(name, *parameters):
    return f"\n<function={name}>\n" + "".join(parameter(*each) for each in parameters) + "</function>\n</tool_call>"


def follow(constraint, tokenizer, text):
    """How much of `text` is taken."""
    return parted(constraint, tokenizer, text)[0]


def parted(constraint, tokenizer, text):
    """How much of `text` is taken, and the token that is refused then."""
    taken = b""
    body, tag, _ = text.partition("</tool_call>")
    ids = tokenizer.encode(body, allow_special=False) + ([tokenizer.added_tokens[tag]] if tag else [])
    for token_id in ids:
        if not constraint.allowed()[token_id]:
            return taken.decode(), tokenizer.token_bytes(token_id).decode()
        constraint.accept(token_id)
        taken += tokenizer.token_bytes(token_id)
    return taken.decode(), ""


NEEDED = (("where", "x"), ("nights", "2"))
TAKEN = [
    call("now"),
    call("book", *NEEDED),
    call("book", *reversed(NEEDED)),
    call("book", ("ok", "True"), *NEEDED, ("price", "-1.5e3"), ("size", "None"), ("home", "null")),
    call("book", *NEEDED, ("size", "3"), ("ok", "false"), ("kind", "<c>\nd")),
    call("book", *NEEDED, ("kind", "")),
    call("book", *NEEDED, ("guests", '["a", "bé"]'), ("home", '{"zip": "123", "in": {"zip": "456"}}')),
    call("book", ("where", "</function>\n<parameter=nights>\n\n </parameter \n"), ("nights", "30")),
    call("note", ("text", "{}"), ("a b=c", "5"), ("textual", "-6")),
    call("any", ("x", "1"), ("y", "")),
    call("wide", ("p0", "true"), ("p3", "false"), ("p69", "true")),
]


@pytest.mark.parametrize("text", TAKEN)
def test_calls_in_the_official_form_are_allowed_and_end_it(begin, tokenizer, text):
    constraint = begin()
    assert follow(constraint, tokenizer, text) == text
    assert constraint.is_over
    assert not constraint.forced()


REFUSED = [
    (call("look"), "\n<function="),
    (call("now", ("a", "1")), "\n<function=now>\n<"),
    (call("book", ("where", "x")), "\n<function=book>\n<parameter=where>\nx\n</parameter>\n<"),
    (call("book", ("where", "x"), ("where", "x")), "<parameter="),
    (call("book", ("what", "x")), "<parameter=wh"),
    (call("book", ("nights", "31")), "\n3"),
    (call("book", ("nights", "0")), "<parameter=nights>\n"),
    (call("book", ("price", "01")), "\n0"),
    (call("book", ("price", "NaN")), "<parameter=price>\n"),
    (call("book", ("ok", "yes")), "<parameter=ok>\n"),
    (call("book", ("size", "small ")), "small"),
    (call("book", ("size", "4")), "<parameter=size>\n"),
    (call("book", ("guests", '["toolong"]')), '["toolo'),
    (call("book", ("guests", '["a","b"]')), '["a",'),
    (call("book", ("home", '{"zip": "12"}')), '{"zip": "12'),
    (call("book", ("home", '{"zap": 1}')), '{"z'),
    (call("book", ("where", "x</parameter>\n<parameter=nights>\n5")), "x</parameter"),
    (call("book", ("kind", "c")), "<parameter=kind>\n"),
    (call("note", ("a", "b")), "<parameter=a>\n"),
    (call("note", ("text", "b"), ("text", "b")), "<parameter=text"),
    (call("wide", ("p4", "true")), "<parameter=p"),
]


@pytest.mark.parametrize(("text", "taken"), REFUSED)
def test_what_is_no_call_is_not_allowed(begin, tokenizer, text, taken):
    found, refused = parted(begin(), tokenizer, text)
    assert text.startswith(found + refused)
    end = (found + refused).rindex(taken) + len(taken)
    assert len(found) <= end < len(found + refused)  # to that letter all is well, if tokens part there or not


def is_of(value, schema):
    """Whether a value of BOOK's is of its schema, which none of its cases leaves open."""
    if "$ref" in schema:
        return is_of(value, BOOK["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return any(is_of(value, each) for each in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"] and not isinstance(value, bool)
    kinds = {"string": str, "number": int | float, "array": list, "boolean": bool, "object": dict, "null": type(None)}
    kind = schema.get("type", "string")
    if kind == "integer":
        return type(value) is int and schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if kind == "object":
        return isinstance(value, dict) and set(schema["required"]) <= set(value) <= set(schema["properties"])
    if kind == "array":
        return isinstance(value, list) and len(value) <= 3 and all(len(each) <= 5 for each in value)
    return isinstance(value, kinds[kind])


CLOSER = "\n</parameter>\n</function>\n"


def wander(constraint, tokenizer, rng):
    """Some call that is allowed, or None where it does not come to an end: any tokens, with a liking for closing."""
    ids, liking = [], []
    while not constraint.is_over:
        if len(ids) > 600:
            return None
        ids += (forced := constraint.forced())
        for token_id in forced:
            constraint.accept(token_id)
        if forced:
            continue
        allowed = constraint.allowed().nonzero()[0].tolist()
        if not liking and rng.random() < 0.2:
            liking = tokenizer.encode(CLOSER, allow_special=False)
        likes = [token_id for token_id in liking[:1] if token_id in allowed]
        liking = liking[1:] if likes else []
        ids += [likes[0] if likes else rng.choice(allowed)]
        constraint.accept(ids[-1])
    return b"".join(map(tokenizer.token_bytes, ids)).decode(errors="replace")


@pytest.mark.parametrize("parallel", [True, False])
def test_whatever_is_allowed_is_read_back_as_of_its_schema(begin, tokenizer, parallel):
    offered = [{"type": "function", "function": {"name": name, "parameters": TOOLS[name]}} for name in TOOLS]
    tools = checked_tools(offered, parallel=parallel)
    ended = 0
    for seed in range(150):
        text = wander(begin(), tokenizer, random.Random(seed))
        if text is None:
            continue
        ended += 1
        parser = ToolCalls(tools, Segments("</think>"))
        segments = parser.push("<tool_call>" + text) + parser.finish()
        assert {segment.index for segment in segments} == {0}, text
        arguments = json.loads("".join(segment.text for segment in segments))
        name = segments[0].name
        if name == "book":
            assert {"where", "nights"} <= set(arguments) <= set(BOOK["properties"])
            for key, value in arguments.items():
                assert is_of(value, BOOK["properties"][key]), (key, value, text)
        if name == "note":
            assert all(isinstance(value, int) for key, value in arguments.items() if key != "text")
        if name == "wide":
            assert "p3" in arguments
            assert all(isinstance(value, bool) for value in arguments.values())
        for value in (value for value in arguments.values() if isinstance(value, str)):
            assert value in text  # as it was written, with nothing lost
    assert ended > 40


@pytest.mark.parametrize(
    ("schema", "value", "loose"),
    [
        ({"type": "object", "minContains": 1, "unheard": 2}, '{"a": 1}', "minContains"),
        ({"type": "array", "items": {"type": "string", "format": "iri"}}, '["a"]', "iri"),
        ({"type": "object", "$ref": "http://127.0.0.1/x"}, "{}", "127.0.0.1"),
        ({"type": "object", "properties": {"a": {"$ref": "#/properties/b"}}}, "{}", "loose.x"),
        ({"type": "integer", "multipleOf": 999983}, "5", "multipleOf 999983"),
        ({"type": "string", "pattern": "^a"}, "b", "pattern of a string"),
        ({"type": "float"}, "1", "type"),
        ({"type": "string", "enum": [1]}, "x", "no value"),
    ],
)
def test_a_schema_that_cannot_be_held_to_is_told_and_the_type_is_kept(begin, tokenizer, schema, value, loose):
    constraint = begin({"loose": {"properties": {"x": schema, "n": {"type": "integer"}}}})
    assert loose in constraint.loose
    text = call("loose", ("x", value), ("n", "1"))
    assert follow(constraint, tokenizer, text) == text
    assert not begin().loose.count("book.")


@pytest.mark.parametrize(("number", "fuel"), [(20, 1000), (1000, 1_000_000)])
def test_schemas_that_are_too_much_leave_the_names(begin, tokenizer, monkeypatch, number, fuel):
    """The call is still one of the tools."""
    monkeypatch.setattr(constraining, "limits", lambda: LLParserLimits(initial_lexer_fuel=fuel))
    constraint = begin({f"t{i}": BOOK for i in range(number)})
    assert "the parameters of all tools" in constraint.loose
    assert follow(constraint, tokenizer, call("t7", ("q", "1"))) == call("t7", ("q", "1"))
    assert follow(constraint.again(), tokenizer, call("x7")) in {"\n<function", "\n<function="}


def test_sixty_tools_are_held_to(begin, tokenizer):
    tools = {f"tool_{i}": BOOK for i in range(60)}
    text = call("tool_59", *NEEDED, ("guests", '["a"]'))
    assert not (constraint := begin(tools)).loose
    assert follow(constraint, tokenizer, text) == text
    assert not follow(begin(tools), tokenizer, call("tool_59", ("nights", "31"))).endswith("31")


def test_a_prepared_grammar_is_made_once_and_an_error_is_told_once(constraints, monkeypatch):
    made = []
    plain = constraints._compiled
    monkeypatch.setattr(constraints, "_compiled", lambda *said: made.append(said) or plain(*said))
    monkeypatch.setattr(constraining, "MOST_SECONDS", 20.0)
    grammar, wrong = Grammar("regex", "once|twice"), Grammar("regex", "(once")
    for _ in range(3):
        constraints.prepare(grammar)
        assert constraints.start(grammar).allowed().any()
    assert len(made) == 1
    for count in (2, 3):
        constraints.prepare(wrong)
        with pytest.raises(Exception, match="unclosed"):
            constraints.start(wrong)
        assert len(made) == count


def test_what_is_kept_is_bounded(constraints, monkeypatch):
    monkeypatch.setattr(constraining, "MOST_SECONDS", 20.0)
    for i in range(40):
        constraints.start(Grammar("regex", f"a{i}" + "b" * 20_000 * (i % 2)))
    assert len(constraints._kept) <= 16
    assert sum(len(grammar.text) for grammar in constraints._kept) <= 256 << 10
