"""Answers by grammars, with the embedded model: always of the grammar, never the thought, and nothing hostile hurts."""

import asyncio
import json
import re
from contextlib import suppress
from threading import Event

import pytest

from qwick import constraining
from qwick.async_llm import AsyncLLM
from qwick.constraining import TokenConstraints
from qwick.engine.constraint import Grammar, GrammarKind
from qwick.errors import UsageError
from qwick.llm import LLM
from qwick.opening import EngineOptions

ASKED = [{"role": "user", "content": "Tell me about Bob, who is 42."}]
CLOSED = {"additionalProperties": False}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "grün", "\U0001f600"]}, "maxItems": 3},
        "home": {"anyOf": [{"type": "null"}, {"type": "boolean"}, {"$ref": "#/$defs/place"}]},
    },
    "required": ["name", "age", "tags", "home"],
    **CLOSED,
    "$defs": {
        "place": {"type": "object", "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, **CLOSED}
    },
}


def schema(value):
    return Grammar("json_schema", json.dumps(value))


@pytest.fixture(scope="module")
def llm():
    with LLM(max_sequences=3, context_len=1024) as llm:
        yield llm


def is_person(value):
    home = value["home"]
    return (
        list(value) == ["name", "age", "tags", "home"]
        and 1 <= len(value["name"]) <= 12
        and 0 <= value["age"] <= 150
        and len(value["tags"]) <= 3
        and set(value["tags"]) <= {"red", "grün", "\U0001f600"}
        and (home is None or isinstance(home, bool | dict))
        and (not isinstance(home, dict) or all(re.fullmatch("[0-9]{5}", zip_code) for zip_code in home.values()))
    )


@pytest.mark.parametrize("think", [False, True])
def test_an_answer_is_of_its_schema_and_the_thought_is_free(llm, think):
    """With any seed, several at once; what is thought is as it were without a schema."""
    options = {"think": think, "temperature": 1.0, "top_p": 1.0, "max_tokens": 900}
    asked = range(4 if think else 12)
    streams = [llm.chat(ASKED, stream=True, grammar=schema(PERSON), seed=seed, **options) for seed in asked]
    ended = 0
    for seed, stream in enumerate(streams):
        completion = stream.completion
        if completion.finish_reason != "stop":  # a small model may find no end to its thought
            continue
        ended += 1
        assert is_person(json.loads(completion.text))
        assert completion.stats.forced_tokens > 20
        free = llm.chat(ASKED, seed=seed, **options)
        assert bool(completion.reasoning) == think
        assert completion.reasoning == free.reasoning
    assert ended >= len(asked) // 2


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (Grammar("regex", "[a-c]{3,5}x| "), "[a-c]{3,5}x| "),
        (Grammar("lark", 'start: "yes" | "no" " way" /[0-9]+\\n/'), "yes|no way[0-9]+\n"),
        (Grammar("gbnf", 'root ::= "a" [0-9]+ b\nb ::= "é" | "\\n"'), "a[0-9]+[é\n]"),
        (schema({"enum": ["a", 7, None, {"k": [1.5]}]}), r'"a"|7|null|\{"k": \[1\.5\]\}'),
        (schema({"const": "<|im_end|></think>"}), re.escape('"<|im_end|></think>"')),
        (schema({"oneOf": [{"const": "a"}, {"type": "integer", "minimum": 8, "maximum": 9}]}), '"a"|8|9'),
        (schema({"type": "string", "format": "date"}), r'"\d{4}-\d\d-\d\d"'),
        (
            schema({"allOf": [{"type": "object", "properties": {"a": {"const": 1}}, **CLOSED}, {"required": ["a"]}]}),
            r'\{"a": 1\}',
        ),
    ],
)
def test_every_kind_of_grammar_is_followed(llm, grammar, pattern):
    for seed in range(4):
        completion = llm.chat(ASKED, think=False, grammar=grammar, seed=seed, temperature=2.0, top_k=0, max_tokens=200)
        whole = re.fullmatch(pattern, completion.text)
        assert whole or completion.finish_reason == "length"
        assert not set(completion.token_ids[:-1]) & set(llm.tokenizer.added_tokens.values())


def test_any_object_and_a_raw_prompt(llm):
    completion = llm.generate('{"a": 1}\n', grammar=Grammar("json_object"), temperature=0, max_tokens=300)
    assert completion.finish_reason == "length" or isinstance(json.loads(completion.text), dict)
    assert completion.text.startswith("{")


def test_a_thinking_budget_ends_the_thought_with_a_sentence(llm):
    asked = [{"role": "user", "content": "What is 17 + 25?"}]
    free = llm.chat(asked, think=True, temperature=0, max_tokens=200)
    assert free.stats.thought_ended is None
    cut = llm.chat(asked, think=True, temperature=0, max_tokens=900, thinking_budget=3)
    assert cut.reasoning.endswith("I have to give the solution based on the thinking directly now.")
    assert free.reasoning.startswith(cut.reasoning[:3])
    assert cut.stats.thought_ended == "budget"
    assert cut.text
    assert not llm.chat(asked, think=True, max_tokens=50, thinking_budget=0).reasoning
    held = llm.chat(asked, think=True, thinking_budget=3, max_tokens=400, grammar=Grammar("regex", "[0-9]{2}"))
    assert re.fullmatch("[0-9]{2}", held.text)


def test_stop_strings_still_end_an_answer(llm):
    """In the middle of forced tokens too; what was forced beyond is not part of it."""
    completion = llm.chat(ASKED, think=False, grammar=schema(PERSON), stop='"age', seed=1, temperature=0)
    assert completion.finish_reason == "stop"
    assert re.fullmatch(r'\{"name": ".*", ', completion.text)


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (("regex", "[a-c"), "unclosed"),
        (("lark", "start: foo"), 'unknown name: "foo"'),
        (("lark", 'start: a\na: a "b"'), "the lark cannot be used"),
        (("gbnf", "root := ("), "line 1"),
        (("json_schema", '{"type": "objec"}'), "objec"),
        (("json_schema", '{"$ref": "http://127.0.0.1/x"}'), "127.0.0.1"),
        (("json_schema", '{"type": "string", "contentEncoding": "base64", "minContains": 2}'), "nimplemented"),
        (("json_schema", "[1"), "is not JSON"),
        (("json_schema", '{"items": {"multipleOf": 999983}}'), "multipleOf 999983"),
        (("json_schema", '{"multipleOf": 1e-7}'), "decimals"),
        (("json_schema", '{"oneOf": [{"type": "integer"}, {"type": "number"}]}'), "oneOf is taken only .* use anyOf"),
        (("json_schema", '{"items": {"not": {"type": "null"}}}'), '"not"'),
        (("json_schema", '{"type": "string", "format": "iri"}'), "format: iri"),
        (("json_schema", '{"type": "string", "pattern": "(?=a)b"}'), "look-ahead"),
        (("json_schema", '{"type": "integer", "minimum": 5, "maximum": 3}'), "minimum"),
        (("json_schema", "false"), "must be an object"),
    ],
)
def test_what_is_no_grammar_is_refused_naming_the_place(llm, grammar, message):
    with pytest.raises(UsageError, match=message):
        llm.chat(ASKED, grammar=Grammar(*grammar))


NESTED = '{"items":' * 70 + "{}" + "}" * 70
TWICE = [{"$ref": "#/$defs/d%d"}] * 2
HOSTILE = [
    ("json_schema", NESTED),
    ("json_schema", '{"items":' * 5000 + "{}" + "}" * 5000),
    ("json_schema", json.dumps({"type": "integer", "multipleOf": 9973})),
    ("json_schema", json.dumps({"enum": [f"value {i}" for i in range(3000)]})),
    ("json_schema", json.dumps({"type": "array", "minItems": 10**6, "items": {"type": "string"}})),
    (
        "json_schema",
        json.dumps({"allOf": [{"anyOf": [{"required": [f"{i}a"]}, {"required": "b"}]} for i in range(24)]}),
    ),
    ("json_schema", json.dumps({"$ref": "#"})),
    ("regex", "((a{1,1000}){1,1000}){1,1000}"),
    ("regex", "(" * 5000 + "a" + ")" * 5000),
    ("lark", "start: " + "(" * 5000 + '"a"' + ")" * 5000),
    ("lark", 'start: s\ns: s s | "a" |'),
    ("gbnf", "root ::= " + "(" * 5000 + '"a"' + ")" * 5000),
]


@pytest.mark.parametrize(("kind", "text"), HOSTILE, ids=[f"{kind} {text[:30]}" for kind, text in HOSTILE])
def test_a_hostile_grammar_is_refused_or_followed(llm, monkeypatch, kind, text):
    """Soon, where some would compute for minutes (the suite's time limit sees it); and others are answered."""
    monkeypatch.setattr(constraining, "MOST_SECONDS", 2.0)  # machines of tests are busy
    with suppress(UsageError):
        llm.chat(ASKED, think=False, grammar=Grammar(kind, text), temperature=1.0, seed=2, max_tokens=40)
    assert llm.chat(ASKED, max_tokens=2).stats.generated_tokens


def test_a_grammar_that_takes_too_long_to_prepare_is_refused(llm, monkeypatch):
    """And no other one is begun beside it; then all is well again."""
    constraints, gate = TokenConstraints(lambda: llm.tokenizer, llm.config.vocab_size), Event()
    monkeypatch.setattr(constraining, "MOST_SECONDS", 0.05)
    with pytest.raises(UsageError, match="make it simpler"):
        constraints._in_time(gate.wait, GrammarKind.REGEX)
    with pytest.raises(UsageError, match="ask again later"):
        constraints.start(Grammar("regex", "a"))
    gate.set()
    monkeypatch.setattr(constraining, "MOST_SECONDS", 100.0)
    assert constraints.start(Grammar("regex", "a")).forced()


def test_nothing_is_made_before_the_first_grammar(llm):
    asked = []

    def tokenizer():
        asked.append(1)
        return llm.tokenizer

    constraints = TokenConstraints(tokenizer, llm.config.vocab_size)
    assert not asked
    for _ in range(2):
        constraint = constraints.start(Grammar("regex", "a|b"))
        allowed = {llm.tokenizer.decode([i]) for i in constraint.allowed().nonzero()[0].tolist()}
        assert allowed == {"a", "b"}
    assert len(asked) == 1


def test_the_engines_own_process_takes_grammars():
    async def ask():
        async with AsyncLLM(options=EngineOptions(max_sequences=4, context_len=512)) as llm:
            with pytest.raises(UsageError, match="objec"):
                await llm.chat(ASKED, grammar=schema({"type": "objec"})).completion()
            streams = [
                llm.chat(
                    ASKED, think=False, grammar=Grammar("regex", "[0-9]{3}|[a-z]{30}"), seed=seed, logprobs=logprobs
                )
                for seed in range(3)
                for logprobs in (None, 2)
            ]
            return [await stream.completion() for stream in streams]

    completions = asyncio.run(ask())
    assert all(re.fullmatch("[0-9]{3}|[a-z]{30}", completion.text) for completion in completions)
    for plain, scored in zip(completions[::2], completions[1::2], strict=True):
        assert plain.token_ids == scored.token_ids
        assert len(scored.scored) == len(scored.token_ids)
