"""Chats with the scripted model, whole and streamed, in one form to be compared."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import openai

from tests.scripted.script import scripted

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "book",
            "parameters": {
                "type": "object",
                "properties": {
                    "title": {"type": "string"},
                    "price": {"type": "number"},
                    "paid": {"type": "boolean"},
                    "pages": {"type": "array", "items": {"type": "integer"}},
                    "by": {"type": "object", "properties": {"name": {"type": "string"}}},
                    "note": {"type": ["string", "null"]},
                },
            },
        },
    },
]


def call(name: str, **values: object) -> str:
    """A call as the model writes it."""
    parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


def say(*texts: str, before: str = "") -> Any:
    """A request for a text, or for one of several, greedily."""
    return {
        "model": "script",
        "messages": [{"role": "user", "content": scripted(*texts, before=before)}],
        "temperature": 0,
    }


@dataclass
class Said:
    """One answer: `calls` are (name, arguments as text), `ids` theirs; `pieces`: fragments of each call's arguments."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    finish: str | None = None
    warnings: list[str] = field(default_factory=list[str])
    ids: list[str] = field(default_factory=list[str], compare=False)
    pieces: list[list[str]] = field(default_factory=list[list[str]], compare=False)
    usage: Any = field(default=None, compare=False)

    @property
    def arguments(self) -> list[tuple[str, Any]]:
        """The calls, their arguments read."""
        return [(name, json.loads(text)) for name, text in self.calls]


def whole(client: openai.OpenAI, body: Any, **more: Any) -> Said:
    """Asked for in one piece."""
    answer = client.chat.completions.create(**body | more)
    (choice,) = answer.choices
    message = choice.message
    calls: list[Any] = list(message.tool_calls or [])
    assert message.role == "assistant"
    assert all(each.type == "function" for each in calls)
    return Said(
        message.content or "",
        getattr(message, "reasoning_content", None) or "",
        [(each.function.name, each.function.arguments) for each in calls],
        choice.finish_reason,
        (answer.model_extra or {}).get("warnings", []),
        [each.id for each in calls],
        usage=answer.usage,
    )


def streamed(client: openai.OpenAI, body: Any, **more: Any) -> Said:
    """Asked for as a stream, with what every stream must keep to."""
    body = body | more | {"stream": True, "stream_options": {"include_usage": True}}
    with client.chat.completions.create(**body) as stream:
        return joined(stream)


def joined(chunks: Iterable[Any]) -> Said:
    """The chunks of one choice as one answer."""
    said, roles = Said(), 0
    for chunk in chunks:
        said.warnings += chunk.model_extra.get("warnings", [])
        if chunk.usage is not None:
            assert not chunk.choices
            said.usage = chunk.usage
        for choice in chunk.choices:
            assert said.finish is None, "something came behind the end"
            delta = choice.delta
            roles += delta.role is not None
            said.content += delta.content or ""
            said.reasoning += getattr(delta, "reasoning_content", None) or ""
            for each in delta.tool_calls or []:
                _grow(said, each)
            said.finish = choice.finish_reason
    assert roles == 1
    said.calls = [(name, "".join(pieces)) for (name, _), pieces in zip(said.calls, said.pieces, strict=True)]
    return said


def _grow(said: Said, piece: Any) -> None:
    """A call's id and name come once, with its first piece; calls come one after another."""
    if piece.index == len(said.calls):
        assert piece.type == "function"
        said.ids.append(piece.id)
        said.calls.append((piece.function.name, ""))
        said.pieces.append([])
    else:
        assert piece.index == len(said.calls) - 1
        assert (piece.id, piece.function.name) == (None, None)
    if piece.function.arguments:
        said.pieces[-1].append(piece.function.arguments)


def both(client: openai.OpenAI, body: Any, **more: Any) -> Said:
    """The same whole and streamed."""
    found = whole(client, body, **more)
    assert streamed(client, body, **more) == found
    return found
