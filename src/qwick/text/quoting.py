"""What users write must not become control tokens, however a template joins it.

A chat template writes control tokens as text (`<|im_start|>`), between texts that came from outside. To tell them
apart after rendering, every character of the outside text that could begin a control token is replaced by a stand-in,
a private-use character that occurs nowhere in that text. What still reads as a control token afterwards, the template
wrote. (Marking whole tokens, as others do, is not enough: two harmless halves may be joined by the template.)
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from qwick.errors import TemplateError, UsageError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

# Templates cut an earlier answer's reasoning at these, so they stay readable in the text of assistant messages.
_THINK_TAGS = re.compile("(</?think>)")
_PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


class Piece(NamedTuple):
    """A stretch of a prompt: one control token, or text in which nothing is one."""

    text: str
    is_control: bool


def plain_data(value: object) -> Json:
    """A copy of `value` made of JSON types only: a template can reach no method of the caller's objects."""
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case int() | float():
            return value
        case Mapping():
            items = cast("Mapping[object, object]", value).items()
            return {str(key): plain_data(item) for key, item in items}
        case list() | tuple():
            return [plain_data(item) for item in cast("Sequence[object]", value)]
        case _:
            raise UsageError(f"messages are made of text, numbers, lists and dicts; here is a {type(value).__name__}")


class Quoting:
    """The stand-ins of one rendering."""

    def __init__(self, control_tokens: Collection[str], outside: Json) -> None:
        # A token that begins with a letter, digit or space cannot be told apart so; the official ones all begin with <.
        first = {token[0] for token in control_tokens if token and unicodedata.category(token[0])[0] in "PS"}
        free = _unused_characters(outside)
        try:
            self._stand_ins = {ord(char): next(free) for char in sorted(first)}
        except StopIteration:
            raise TemplateError("the messages use up all private-use characters of Unicode; remove some") from None
        self._originals = {ord(stand_in): char for char, stand_in in self._stand_ins.items()}
        longest_first = sorted(filter(None, control_tokens), key=lambda token: (-len(token), token))
        self._control = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None

    def messages(self, messages: Sequence[Json]) -> list[Json]:
        """Messages with stand-ins, but for the think tags in assistant content."""
        return [self._message(message) for message in messages]

    def value(self, value: Json, *, keep: re.Pattern[str] | None = None) -> Json:
        """`value` with stand-ins in every string, keys too, except where `keep` matches."""
        match value:
            case str():
                return self._text(value, keep)
            case dict():
                return {self._text(key, None): self.value(item, keep=keep) for key, item in value.items()}
            case list():
                return [self.value(item, keep=keep) for item in value]
            case _:
                return value

    def pieces(self, rendered: str) -> tuple[Piece, ...]:
        """The rendered prompt, cut at the control tokens of the template, the stand-ins turned back."""
        parts = self._control.split(rendered) if self._control else [rendered]
        pieces = (Piece(part.translate(self._originals), index % 2 == 1) for index, part in enumerate(parts))
        return tuple(piece for piece in pieces if piece.text)

    def _message(self, message: Json) -> Json:
        if not isinstance(message, dict) or message.get("role") != "assistant":
            return self.value(message)
        content = self.value(message.get("content"), keep=_THINK_TAGS)
        quoted = cast("dict[str, Json]", self.value(message))
        return {**quoted, "content": content} if "content" in message else quoted

    def _text(self, text: str, keep: re.Pattern[str] | None) -> str:
        if keep is None:
            return text.translate(self._stand_ins)
        parts = keep.split(text)  # odd ones are matches
        return "".join(part if index % 2 else part.translate(self._stand_ins) for index, part in enumerate(parts))


def _unused_characters(outside: Json) -> Iterator[str]:
    used = {char for text in _strings(outside) for char in set(text) if unicodedata.category(char) == "Co"}
    return (chr(code) for block in _PRIVATE_USE for code in block if chr(code) not in used)


def _strings(value: Any) -> Iterable[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, item in cast("dict[str, Any]", value).items():
                yield key
                yield from _strings(item)
        case list():
            for item in cast("list[Any]", value):
                yield from _strings(item)
        case _:
            pass
