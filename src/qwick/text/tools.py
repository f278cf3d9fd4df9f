"""The tools that a caller offers a model, and the calls of earlier answers, checked: both come from outside.

OpenAI's form: `{"type": "function", "function": {"name", "description", "parameters"}}`, parameters a JSON schema.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from qwick.errors import UsageError
from qwick.text.tool_arguments import Schema, loads

MAX_TOOLS = 1024
MAX_TOOL_BYTES = 1 << 20  # of one tool as JSON; a whole context of 262,144 tokens is about that much

ToolChoice: TypeAlias = str | Mapping[str, Any]
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")  # no character that could end the tag it stands in


@dataclass(frozen=True)
class Tools:
    """What may be called, and how.

    offered     as the template shows them to the model
    parameters  the JSON schema of each tool's arguments, by name
    parallel    whether one answer may make several calls
    required    those of which one must be called; none: the model decides
    forbidden   no call is wanted; the tools are shown, so that the prompt stays the same
    """

    offered: tuple[Mapping[str, Any], ...] = ()
    parameters: Mapping[str, Schema] = field(default_factory=dict[str, Schema])
    parallel: bool = True
    required: tuple[str, ...] = ()
    forbidden: bool = False

    @property
    def may_call(self) -> bool:
        """Whether calls are looked for in the answer."""
        return bool(self.offered) and not self.forbidden

    @property
    def callable(self) -> dict[str, Schema]:
        """The parameters of those that may be called, by name."""
        names = self.required or self.parameters
        return {name: self.parameters[name] for name in names}

    @property
    def beginning(self) -> str:
        """Of an answer that must be a call: as much as is the same for all that it may call."""
        if not self.required:
            return ""
        # The tokens of a name begin with its `=`, so a beginning without a name ends before it.
        one = self.required[0] if len(self.required) == 1 else None
        return f"<tool_call>\n<function={one}>\n" if one else "<tool_call>\n<function"


NO_TOOLS = Tools()


def checked_tools(tools: Sequence[Mapping[str, Any]], choice: ToolChoice = "auto", *, parallel: bool = True) -> Tools:
    """`choice`: auto, none, required, or {"type": "function", "function": {"name": …}}. Raises UsageError.

    A call of one that is named stays alone.
    """
    if len(tools) > MAX_TOOLS:
        raise UsageError(f"there are {len(tools)} tools; offer up to {MAX_TOOLS}")
    parameters: dict[str, Schema] = {}
    for index, tool in enumerate(tools):
        name, schema = _checked(tool, f"tools[{index}]")
        if name in parameters:
            raise UsageError(f"two tools are named {name!r}; rename one")
        parameters[name] = schema
    offered = tuple(tools)
    if choice in ("auto", "none"):
        return Tools(offered, parameters, parallel, forbidden=choice == "none")
    names = tuple(parameters) if choice == "required" else (_chosen(choice, parameters),)
    if not names:
        raise UsageError("tool_choice asks for a call, but there are no tools; give some, or ask with tool_choice auto")
    return Tools(offered, parameters, parallel and choice == "required", names)


def with_read_arguments(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages, with arguments of tool calls that are JSON texts, as clients send them, read. Raises UsageError."""
    return [_with_read_arguments(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _checked(tool: object, place: str) -> tuple[str, Schema]:
    """The name of a tool and the schema of its arguments."""
    function = cast("Mapping[str, Any]", tool).get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or cast("Mapping[str, Any]", tool).get("type", "function") != "function":
        raise UsageError(f'{place} is no tool: give {{"type": "function", "function": {{"name": …, "parameters": …}}}}')
    function = cast("Mapping[str, Any]", function)
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{place} is named {name!r:.80}; a name is up to 128 letters, digits and _ . : -")
    if not isinstance(function.get("description", ""), str | None):
        raise UsageError(f"the description of the tool {name!r} is no text")
    schema = function.get("parameters")
    if not isinstance(schema, Mapping | None):
        raise UsageError(f"the parameters of the tool {name!r} are no JSON schema; give an object")
    try:
        size = len(json.dumps(tool, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError):
        raise UsageError(f"the tool {name!r} is no plain JSON, or is nested too deeply") from None
    if size > MAX_TOOL_BYTES:
        raise UsageError(f"the tool {name!r} takes {size} bytes; shorten it to {MAX_TOOL_BYTES}")
    return name, cast("Schema", schema or {})


def _chosen(choice: object, parameters: Mapping[str, Schema]) -> str:
    if isinstance(choice, Mapping):
        choice = cast("Mapping[str, Any]", choice)
        function = choice.get("function")
        if choice.get("type", "function") == "function" and isinstance(function, Mapping):
            name = cast("Mapping[str, Any]", function).get("name")
            if isinstance(name, str) and name in parameters:
                return name
            raise UsageError(f"tool_choice names {name!r:.80}, which is none of the tools")
    raise UsageError(
        f'tool_choice is {choice!r:.80}; give auto, none, required or {{"type": "function", "function": {{"name": …}}}}'
    )


def _with_read_arguments(message: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    calls = cast("object", message.get("tool_calls")) if isinstance(message, Mapping) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    if not isinstance(calls, list | tuple):
        return message
    read = [_read(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(cast("Sequence[object]", calls))]
    return {**message, "tool_calls": read}


def _read(call: object, place: str) -> object:
    """A call with its arguments as an object; of a wrong shape: as it is, the template says what it wants."""
    if not isinstance(call, Mapping):
        return call
    call = cast("Mapping[str, Any]", call)
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _read(call["function"], place)}
    arguments = call.get("arguments")
    if not isinstance(arguments, str):
        return call
    value: object = loads(arguments) if arguments.strip() else {}
    if not isinstance(value, dict):
        raise UsageError(f"the arguments of {place} ({call.get('name')!r:.80}) are no JSON object")
    return {**call, "arguments": cast("dict[str, Any]", value)}
