"""Tools as a grammar of their calls, in llguidance's Lark (its docs/syntax.md and parametric.md).

A call behind its `<tool_call>`, to the end: `\\n<function=NAME>\\n`, parameters in any order, each once at most and the
required ones at least (`<parameter=KEY>\\nVALUE\\n</parameter>\\n`), `</function>\\n` and the token `</tool_call>`.
Whatever it allows, `text/tool_calls.py` reads back as it was meant.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from qwick.text.tool_arguments import Schema, as_schema, listed, types_of
from qwick.text.tool_tags import KEY
from qwick.text.value_grammar import TERMS, Fault, ValueRules, is_unicode

_MOST_MARKED = 64  # parameters that may come in any order: bits of a rule's argument
_KEY = re.compile(KEY)
_END = '"</function>"'


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """`lark`: the grammar. `loose`: what of the tools' schemas it does not hold calls to, and why."""

    lark: str
    loose: tuple[str, ...] = ()


def calls_text(tools: Mapping[str, Schema | None], end: int) -> str:
    """What `call_grammar` makes a grammar of, as a text."""
    return json.dumps({"end": end, "tools": tools}, separators=(",", ":"))


def read_calls_text(text: str) -> tuple[dict[str, Schema | None], int]:
    """What was written by `calls_text`."""
    found = json.loads(text)
    return found["tools"], found["end"]


def call_grammar(tools: Mapping[str, Schema | None], end: int, fault: Fault) -> CallGrammar:
    """Of one call of one of `tools`: the schema of its arguments by its name; None: any arguments, as texts.

    end    id of the token `</tool_call>`
    fault  what keeps the library from taking a JSON schema; such a parameter is held to its type only
    """
    writer = _Writer(fault)
    rules = [
        line for index, (name, schema) in enumerate(tools.items()) for line in writer.function(index, name, schema)
    ]
    names = " | ".join(f"f{index}" for index in range(len(tools)))
    head = f'start: "\\n" ({names}) "\\n" <[{end}]>{TERMS}'
    return CallGrammar("\n".join([head, *rules, *writer.values.lines, ""]), tuple(writer.loose))


class _Writer:
    def __init__(self, fault: Fault) -> None:
        self.values = ValueRules(fault)
        self.loose: list[str] = []

    def function(self, index: int, name: str, schema: Schema | None) -> Iterator[str]:
        """The rules of one tool."""
        schema = {"additionalProperties": True} if schema is None else schema
        properties = as_schema(schema.get("properties"))
        keys = [key for key in properties if _can_be_written(key) and properties[key] is not False]
        self.loose += [
            f"{name}: no call can name its parameter {key!r:.80}" for key in properties if not _can_be_written(key)
        ]
        parameters = [f"{_tag(key)} {self._value(properties[key], schema, name, key)}" for key in keys]
        wanted = listed(schema.get("required"))
        required = [i for i, key in enumerate(keys) if key in wanted]
        begin = f"f{index}: {json.dumps(f'<function={name}>' + chr(10))}"
        other = self._other(index, name, schema, keys)
        if other:
            yield from other
        if not 0 < len(keys) <= _MOST_MARKED:
            in_order = [part if i in required else f"({part})?" for i, part in enumerate(parameters)]
            yield " ".join([begin, *in_order, f"o{index}*" if other else "", _END])
            return
        yield f"{begin} a{index}::0x0"
        yield f"a{index}::_: {_END}{_unless_missing(required)}"
        for i, part in enumerate(parameters):
            yield f"  | {part} a{index}::set_bit({i}) %if bit_clear({i})"
        if other:
            yield f"  | o{index} a{index}::_"

    def _other(self, index: int, name: str, schema: Schema, keys: Sequence[str]) -> list[str]:
        """Rules of a parameter that `properties` does not name, where there may be such."""
        extra = schema.get("additionalProperties", False)
        if not keys and any(key in schema for key in ("$ref", "anyOf", "oneOf", "allOf")):
            self.loose.append(f"{name}: its parameters are none of a plain object")
            extra = True
        if extra is False:
            return []
        value = self._value(extra, schema, name, None)
        but = f" & ~({' | '.join(map(_tag, keys))})" if keys else ""
        # With its key one term, so that it competes with the others as a whole.
        return [f'O{index}: ("<parameter=" /{KEY}/ ">\\n"){but}', f"o{index}: O{index} {value}"]

    def _value(self, schema: object, parameters: Schema, name: str, key: str | None) -> str:
        rule = self.values.rule(schema, parameters, types_of(parameters, key))
        if self.values.loose:
            self.loose.append(f"{name}.{'*' if key is None else key}: {self.values.loose}")
        return rule


def _unless_missing(required: Sequence[int]) -> str:
    """Only where all of these were given."""
    condition = ""
    for bit in required:
        condition = f"and(bit_set({bit}), {condition})" if condition else f"bit_set({bit})"
    return f" %if {condition}" if condition else ""


def _tag(key: str) -> str:
    return json.dumps(f"<parameter={key}>\n")


def _can_be_written(key: str) -> bool:
    return is_unicode(key) and _KEY.fullmatch(key) is not None
