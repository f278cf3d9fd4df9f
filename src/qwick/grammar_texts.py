"""Grammars from outside in the form that llguidance reads, and how much it may compute for them.

What is looked at here is what the library's own limits do not bound, and what it would not say by its name.
"""

import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from qwick.engine.constraint import Grammar, GrammarKind
from qwick.errors import UsageError
from qwick.text.call_grammar import CallGrammar, call_grammar, read_calls_text
from qwick.text.value_grammar import JSON_STYLE

if TYPE_CHECKING:
    from llguidance import LLParserLimits

_MOST_MULTIPLE = 10_000  # of `multipleOf`, its point left out: 999,983 takes 20 s
_MOST_DECIMALS = 4
_ONE_OF = re.compile(r"oneOf constraints are not supported\. Enable .{0,80} with anyOf")
_MAX_DEPTH = 64  # of a schema: its reader is recursive


def library_grammar(grammar: Grammar) -> str:
    """Of all kinds but CALLS. Raises UsageError for what can be seen without trying."""
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import gbnf_to_lark

    match grammar.kind:
        case GrammarKind.JSON_OBJECT:
            return LLMatcher.grammar_from_json_schema({"type": "object"}, overrides=cast("Any", JSON_STYLE))
        case GrammarKind.JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(_schema(grammar.text), overrides=cast("Any", JSON_STYLE))
        case GrammarKind.REGEX:
            return LLMatcher.grammar_from_regex(grammar.text)
        case GrammarKind.LARK:
            return LLMatcher.grammar_from_lark(grammar.text)
        case _:
            try:
                return LLMatcher.grammar_from_lark(gbnf_to_lark(grammar.text))
            except Exception as error:  # noqa: BLE001 - a small parser in Python: anything
                raise UsageError(f"the gbnf cannot be used: {one_line(str(error))}") from None


def calls_grammar(text: str, seconds: float) -> CallGrammar:
    """Of kind CALLS, exact where the library can be; looking for what it cannot takes about that long at most."""
    tools, end = read_calls_text(text)
    deadline = monotonic() + seconds
    return call_grammar(tools, end, lambda schema: _fault(schema, deadline))


def loose_calls_grammar(text: str, why: str) -> CallGrammar:
    """The same without the schemas: names, and any parameters."""
    tools, end = read_calls_text(text)
    grammar = call_grammar(dict.fromkeys(tools), end, lambda _: "")
    return CallGrammar(grammar.lark, (f"the parameters of all tools: {why}",))


def limits() -> "LLParserLimits":
    """Less than the library's own, which let a hostile grammar compute for a second, or grow to 500 MB."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=50_000,
        max_grammar_size=100_000,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )


def one_line(message: str) -> str:
    """The beginning of what the library says, without the options that are not the caller's."""
    said = " ".join(message.replace("<non-verbose/>", "").split())
    return _ONE_OF.sub("oneOf is taken only where no value fits two of its parts; use anyOf", said)[:300]


def _fault(schema: str, deadline: float) -> str:
    from llguidance import LLMatcher

    if monotonic() > deadline:
        return "there is no time for its schema"
    try:
        _check_schema(json.loads(schema), _MAX_DEPTH)
    except UsageError as error:
        return str(error)
    return one_line(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema), limits=limits()))


def _schema(text: str) -> str:
    """A JSON schema. Its depth is checked: the library reads it recursively."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the json_schema is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise UsageError(f"the json_schema must be an object, not {text:.40}")
    _check_schema(cast("object", schema), _MAX_DEPTH)
    return text


def _check_schema(value: object, depth: int) -> None:
    """Of what the library's limits do not bound."""
    if depth < 0:
        raise UsageError(f"the json_schema is nested more than {_MAX_DEPTH} deep")
    children: Iterable[object] = ()
    if isinstance(value, dict):
        entries = cast("dict[str, object]", value)
        children = entries.values()
        _check_multiple(entries.get("multipleOf"))
    elif isinstance(value, list):
        children = cast("list[object]", value)
    for child in children:
        _check_schema(child, depth - 1)


def _check_multiple(value: object) -> None:
    if isinstance(value, int | float) and math.isfinite(value):
        _, digits, exponent = Decimal(str(value)).as_tuple()
        number = int("".join(map(str, digits))) * 10 ** max(int(exponent), 0)
        if number > _MOST_MULTIPLE or int(exponent) < -_MOST_DECIMALS:
            raise UsageError(
                f"the json_schema says multipleOf {value}; at most {_MOST_MULTIPLE:,} are taken, "
                f"with {_MOST_DECIMALS} decimals"
            )
