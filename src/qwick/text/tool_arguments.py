"""Arguments of tool calls: a text between tags, by the tool's JSON schema, as JSON.

The XML form writes every value as a bare text, so only the schema tells 5 from "5". Values are written as the templates
write them (`True` and `None` of Python, too) or as JSON. What does not fit its schema stays a text: nothing is lost.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias, cast

from qwick.text.tool_tags import NAME

Schema: TypeAlias = Mapping[str, Any]

TEXT_ONLY = frozenset({"string"})
_LONGEST_NUMBER = 400  # digits: int() of the readers refuses, or takes forever over, more than some thousands
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
_WORDS = {"true": "boolean", "True": "boolean", "false": "boolean", "False": "boolean", "null": "null", "None": "null"}

_NAME = re.compile(NAME)
_OBJECT_MARK = re.compile(r'["{}\[\]]')
_STRING_MARK = re.compile(r'\\.|"', re.DOTALL)


def types_of(parameters: Schema, key: str | None) -> frozenset[str]:
    """The JSON types that a tool's `parameters` allow for `key` (None: one that they do not name); text by default."""
    properties = parameters.get("properties")
    schema: object = None
    if key is not None and isinstance(properties, Mapping):
        schema = cast("Schema", properties).get(key)
    if schema is None:
        schema = parameters.get("additionalProperties")
    return _types(schema, parameters) or TEXT_ONLY


def as_json(text: str, types: frozenset[str]) -> str:
    """`text` as JSON of one of the `types`: null, boolean, object, array or number where it fits, else a string.

    Numbers keep their digits (5 of type `number` stays 5, 1.50 stays 1.50).
    """
    bare = text.strip()
    word = _WORDS.get(bare)
    if word is not None and word in types:
        return "null" if word == "null" else bare.lower()
    if bare[:1] in ("{", "["):
        if ("object" if bare[0] == "{" else "array") in types and (value := loads(bare)) is not None:
            return dumps(value)
    elif len(bare) <= _LONGEST_NUMBER:
        if "integer" in types and (whole := _INTEGER.fullmatch(bare)):
            return whole[1]
        if "number" in types and _NUMBER.fullmatch(bare) and math.isfinite(float(bare)):
            return bare
    return dumps(text)


def dumps(value: object) -> str:
    """JSON that can be sent as UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, written as an escape
        return json.dumps(value)
    return text


def loads(text: str) -> Any:
    """The value that a text spells in strict JSON (no NaN), or None. It is null only where nobody asks for it."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):  # ValueError: also an integer of thousands of digits
        return None


class ObjectScan:
    """Finds the end of a JSON object in a text that grows; looks at each character once."""

    def __init__(self) -> None:
        self._at, self._depth, self._in_string = 0, 0, False

    def end(self, text: str) -> int | None:
        """Where the object ends that `text` begins with; None while it has not ended. Each text begins as the last."""
        while True:
            match = (_STRING_MARK if self._in_string else _OBJECT_MARK).search(text, self._at)
            if match is None:
                waiting = self._in_string and text.endswith("\\")  # for what it escapes
                self._at = max(self._at, len(text) - waiting)
                return None
            self._at = match.end()
            if match[0] == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if match[0] in "{[" else -1
                if self._depth == 0:
                    return self._at


def call_of(value: object) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of a call that is written as JSON; None where it is none."""
    if not isinstance(value, dict):
        return None
    value = cast("dict[str, Any]", value)
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # JSON within JSON
        arguments = loads(arguments)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(arguments, dict):
        return None
    return name, cast("dict[str, Any]", arguments)


def _types(schema: object, root: Schema) -> frozenset[str]:
    """Of one schema; none when it does not say. `allOf` counts as `anyOf`. Refs may circle: each part is read once."""
    found, waiting, seen = set[str](), [schema], set[int]()
    while waiting:
        popped = waiting.pop()
        if not isinstance(popped, Mapping):
            continue
        part = cast("Schema", popped)
        if id(part) in seen:
            continue
        seen.add(id(part))
        named = [name for name in listed(part.get("type")) if isinstance(name, str)]
        values = [*listed(part.get("enum")), *([part["const"]] if "const" in part else [])]
        found.update(named or map(_type_of, values))
        if part.get("nullable") is True and named:  # as OpenAPI 3.0 says it
            found.add("null")
        for key in ("anyOf", "oneOf", "allOf"):
            waiting += listed(part.get(key))
        if isinstance(part.get("$ref"), str):
            waiting.append(referred(part["$ref"], root))
    return frozenset(found)


def referred(reference: str, root: Schema) -> object:
    """What `#/$defs/name` points to in the tool's own parameters."""
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        if not isinstance(found, Mapping):
            return None
        found = cast("Schema", found).get(step.replace("~1", "/").replace("~0", "~"))
    return found


def as_schema(value: object) -> Schema:
    """An object as it is; of anything else an empty one, which says nothing."""
    return cast("Schema", value) if isinstance(value, Mapping) else {}


def listed(value: object) -> list[object]:
    """A list as it is, none of null, else the value alone."""
    return cast("list[object]", value) if isinstance(value, list) else [] if value is None else [value]


def _type_of(value: object) -> str:
    """The JSON type of a constant; bool before int, which it is a kind of."""
    names = ((bool, "boolean"), (int, "integer"), (float, "number"), (list, "array"), (Mapping, "object"))
    return "null" if value is None else next((name for kind, name in names if isinstance(value, kind)), "string")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value
