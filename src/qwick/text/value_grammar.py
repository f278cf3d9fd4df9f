"""The value of a tool's parameter as a rule of a grammar, by its JSON schema (llguidance's Lark, its docs/syntax.md).

Values are bare texts, as the templates write them and `tool_arguments.as_json` reads them. Every text without the
closing tag is a string: what else the schema says of one is not held to, but for `enum` and `const`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from qwick.text.tool_arguments import TEXT_ONLY, Schema, as_json, as_schema, dumps, listed, referred

Fault = Callable[[str], str]
"""What keeps the library from taking a JSON schema (a text); "": nothing."""

# One line, as Python's json.dumps writes it and the templates do: what models have seen most of. Free white space would
# leave less to jump over, and some models write it without end.
JSON_STYLE: Mapping[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
TYPES = frozenset({"string", "integer", "number", "boolean", "null", "object", "array"})
_MOST_LEAVES = 256  # of anyOf within anyOf
_CLOSE = "\n</parameter>\n"
_WORDS = {"boolean": ("true", "false", "True", "False"), "null": ("null", "None")}
# What says nothing of the value, or not here.
_NOTES = frozenset(
    {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment"}
    | {"nullable", "$defs", "definitions"}
)
_TYPES_ONLY = _NOTES | {"type"}
_OF_STRINGS = ("pattern", "format", "minLength", "maxLength")

# Numbers are bounded, so that the reader takes what comes for one (tool_arguments.py).
TERMS = rf"""
text[lazy]: TEXT
TEXT: BODY {json.dumps(_CLOSE)}
BODY: /(?s:.*)/ & ~/(?s:.*)<\/parameter>(?s:.*)/
INTEGER: /-?(0|[1-9][0-9]{{0,39}})/
NUMBER: /-?(0|[1-9][0-9]{{0,39}})(\.[0-9]{{1,40}})?([eE][+-]?[0-9]{{1,2}})?/
"""


class ValueRules:
    """Rules for values, each with the tag that closes it; the same for the same schema.

    loose  what is not held to, in words, of the last value that was asked for
    """

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._names: dict[str, str] = {}  # by the rule's body
        self.loose = ""

    @property
    def lines(self) -> Iterator[str]:
        """The rules that were asked for."""
        return (f"{name}: {body}" for body, name in self._names.items())

    def rule(self, schema: object, parameters: Schema, types: frozenset[str]) -> str:
        """The name of the rule. `types`: as which the reader takes the value (tool_arguments.types_of)."""
        self.loose = ""
        bodies: list[str] = []
        for leaf in _leaves(schema, parameters):
            found = self._bodies(leaf, parameters, types)
            if found is None:
                return "text"
            bodies += found
        if not bodies:
            self.loose = "no value that its schema allows can be written"
            return self._any(types)
        return self.named(" | ".join(dict.fromkeys(bodies)))

    def named(self, body: str) -> str:
        """The name of the rule with this body."""
        return self._names.setdefault(body, f"v{len(self._names)}")

    def _bodies(self, leaf: Schema, parameters: Schema, types: frozenset[str]) -> list[str] | None:
        """What one leaf allows; None: every text."""
        if "enum" in leaf or "const" in leaf:
            values = listed(leaf.get("enum")) if "enum" in leaf else [leaf["const"]]
            texts = [text for value in values for text in _written(value, types)]
            return [_quoted(text + _CLOSE) for text in texts]
        named = [name for name in listed(leaf.get("type")) if isinstance(name, str)]
        if not TYPES.issuperset(named):
            self.loose = "its type is none of JSON schema"
            return None
        if "string" in (named or types):
            told = [key for key in _OF_STRINGS if key in leaf]
            self.loose = f"{' and '.join(told)} of a string" if told else self.loose
            return None
        if named and _TYPES_ONLY.issuperset(leaf) and not {"object", "array"}.intersection(named):
            return [body for name in named for body in _plain(name)]
        return [self._json(leaf, named or sorted(types), parameters)]

    def _json(self, leaf: Schema, named: list[str], parameters: Schema) -> str:
        schema = {**leaf, "type": named}
        schema.pop("nullable", None)
        defs = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
        schema |= defs if '"$ref"' in json.dumps(leaf) else {}
        text = _json_text(schema)
        if fault := self._fault(text):
            self.loose = fault
            text = _json_text(schema, lenient=True)
            if self._fault(text):
                text = _json_text({"type": named})
        return f"{self.named(f'%json {text}')} {_quoted(_CLOSE)}"

    def _any(self, types: frozenset[str]) -> str:
        """A value of one of these types."""
        if "string" in types:
            return "text"
        json_rule = self.named(f"%json {_json_text({'type': sorted(types)})}")
        return self.named(f"{json_rule} {_quoted(_CLOSE)}")


def _json_text(schema: Schema, **style: bool) -> str:
    return json.dumps({**schema, "x-guidance": {**JSON_STYLE, **style}})


def _plain(name: str) -> list[str]:
    """Of a type about which nothing else is said."""
    if name in _WORDS:
        return [_quoted(word + _CLOSE) for word in _WORDS[name]]
    return [f"{name.upper()} {_quoted(_CLOSE)}"]


def _written(value: object, types: frozenset[str]) -> Iterator[str]:
    """The ways to write a constant that are read back as it. None: there is none."""
    texts = [value] if isinstance(value, str) else [dumps(value)]
    if value is None or isinstance(value, bool):
        texts.append(str(value))
    for text in texts:
        read = dumps(text) if types == TEXT_ONLY else as_json(text, types)
        if read == dumps(value) and "</parameter>" not in text and is_unicode(text):
            yield text


def _leaves(schema: object, parameters: Schema) -> Iterator[Schema]:
    """The alternatives of which a value must be one, refs followed."""
    waiting, seen = [schema], set[int]()
    for _ in range(_MOST_LEAVES):
        if not waiting:
            return
        popped = waiting.pop()
        part = as_schema(popped)
        if id(part) in seen:
            continue
        if part:
            seen.add(id(part))
        if part.get("nullable") is True:
            yield {"type": "null"}
        said = sorted(set(part) - _NOTES)
        inner: object = part[said[0]] if len(said) == 1 else None
        match said:
            case ["$ref"] if isinstance(inner, str):
                waiting.append(referred(inner, parameters))
            case ["anyOf" | "oneOf"]:
                waiting += reversed(listed(inner))
            case ["allOf"] if len(listed(inner)) == 1:
                waiting += listed(inner)
            case _:
                yield part


def _quoted(text: str) -> str:
    return json.dumps(text)


def is_unicode(text: str) -> bool:
    """Whether it can be sent as UTF-8: it holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
