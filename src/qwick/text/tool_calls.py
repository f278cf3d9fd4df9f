"""Tool calls in an answer: text in; reasoning, content and calls out, as soon as they are certain.

The family writes `<tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n</function>\n</tool_call>`. Read
too: a JSON object (`{"name": …, "arguments": …}`) in the tag, or as the function's body; several calls in one tag;
closers missing at the end; calls in the middle of a thought, which end it. A tag that no call follows is text.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from qwick.text.segments import AnySegment, CallSegment, Kind, Segments
from qwick.text.tool_arguments import TEXT_ONLY, ObjectScan, as_json, call_of, dumps, loads, types_of
from qwick.text.tool_tags import after_call, in_function, in_value, outside, value_at_end
from qwick.text.tools import Tools


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made. `arguments` is a JSON object as text.

    Of an answer that was cut off (`length`, `cancelled`) the last call's arguments may be cut off too, and are then no
    valid JSON: nobody should carry out half a command.
    """

    id: str
    name: str
    arguments: str

    def as_message(self) -> dict[str, Any]:
        """As it stands in an assistant message's `tool_calls`."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def new_id() -> str:
    """An id for a call, as OpenAI's look; nobody can guess it."""
    return f"call_{secrets.token_hex(12)}"


class ToolCalls:
    """Push text, get segments. Joined, they do not depend on where the text was cut.

    tools     what may be called; a name that is none of them is a call too, and its arguments are texts
    segments  what the text outside of calls is
    """

    def __init__(self, tools: Tools, segments: Segments, new_id: Callable[[], str] = new_id) -> None:
        self._tools, self._segments, self._new_id = tools, segments, new_id
        self._found: list[AnySegment] = []
        self._held = ""
        self._is_final = self._is_cut = False
        self._read: Callable[[], bool] = self._outside  # one step; False when more text is needed
        self._calls: list[tuple[str, str]] = []  # id, name
        self._opening = ""  # what stood before a JSON object that may be a call
        self._object = ObjectScan()  # of that object
        self._keys: set[str] = set()
        self._types = TEXT_ONLY
        self._is_fresh = False  # nothing of the value was read
        self._value: list[str] = []  # of a value that is read whole
        self._only_calls = False  # nothing but blanks since the last call

    @property
    def done(self) -> bool:
        """Whether the one call that was allowed has been made: nothing more is wanted."""
        return self._read == self._nothing

    def push(self, text: str) -> list[AnySegment]:
        """What is certain now."""
        self._held += text
        while self._read():
            pass
        found, self._found = self._found, []
        return found

    def finish(self, *, cut: bool = False) -> list[AnySegment]:
        """What was held back, when no more text comes.

        `cut`: the model had not ended; a call stays unfinished, and one that had not come to its name is left out.
        """
        self._is_cut = cut
        if not cut or self._read in (self._outside, self._after_call, self._json_call):
            self._is_final = True
            while self._read():
                pass
            self._found += self._segments.finish()
        found, self._found = self._found, []
        return found

    # What is read; each method is one state.

    def _outside(self) -> bool:
        match = self._next(outside())
        if match is None or match.lastgroup == "held":
            self._text(self._take(match.start() if match else len(self._held)))
            if self._is_final:
                rest = self._take(len(self._held))
                is_begun = self._is_cut and rest.lstrip().startswith("<tool_call>")
                self._text("" if is_begun or (self._only_calls and rest.isspace()) else rest)
            return False
        self._text(self._take(match.start()))
        self._begin(match)
        return True

    def _after_call(self) -> bool:
        """In the tag still, behind a call."""
        match = after_call().match(self._held)
        if match is None or (match.lastgroup == "held" and self._is_final):
            self._held = "" if match and self._is_cut else self._held
            self._read = self._outside
            return True
        if match.lastgroup == "held":
            return False
        if match.lastgroup == "close":
            self._take(match.end())
            self._read = self._outside
        else:
            self._begin(match)
        return True

    def _begin(self, match: "re.Match[str]") -> None:
        """A call, or what may be one, at the beginning of what is held."""
        self._opening = self._take(match.end() - match.start())
        if match.lastgroup == "name":
            self._begin_call(match["name"])
            self._read = self._function_body
        else:
            self._object = ObjectScan()
            self._read = self._json_call

    def _json_call(self) -> bool:
        end = self._object.end(self._held)
        is_half = end is None
        if end is None:
            if not self._is_final:
                return False
            end = len(self._held)
        body = self._take(end)
        call = call_of(loads(body))
        if call is None:
            self._text("" if is_half and self._is_cut else self._opening + body)
            self._read = self._outside
            return True
        self._begin_call(call[0])
        self._add_arguments(call[1])
        self._end_call()
        return True

    def _function_body(self) -> bool:
        """What stands right behind the function's tag."""
        self._held = self._held.lstrip()
        if self._held.startswith("{"):
            self._object = ObjectScan()
            self._read = self._json_arguments
        elif self._held or self._is_final:
            self._read = self._function
        return self._read != self._function_body

    def _json_arguments(self) -> bool:
        end = self._object.end(self._held)
        if end is None and not self._is_final:
            return False
        arguments = loads(self._take(end or len(self._held)))
        if isinstance(arguments, dict):
            self._add_arguments(cast("dict[str, Any]", arguments))
        self._read = self._function
        return True

    def _function(self) -> bool:
        """Between parameters; what is none has no place there, and is left out."""
        match = self._next(in_function())
        if match is None or match.lastgroup == "held":
            self._take(match.start() if match and not self._is_final else len(self._held))
            if self._is_final:
                self._end_call()
            return self._is_final
        self._take(match.end())
        if match.lastgroup == "close":
            self._end_call()
        else:
            self._begin_value(match["key"])
        return True

    def _value_text(self) -> bool:
        if self._is_fresh and self._held:
            self._is_fresh = False
            self._held = self._held.removeprefix("\n")
        match = self._next(in_value())
        held = match is None or match.lastgroup == "held"
        if held and self._is_final:
            match = self._next(value_at_end())
        self._add_text(self._take(match.start() if match else len(self._held)))
        if held and not self._is_final:
            return False
        self._take(match.end() - match.start() if match else 0)
        self._end_value()
        self._read = self._function
        return True

    def _nothing(self) -> bool:
        self._held = ""
        return False

    # What is told.

    def _text(self, text: str) -> None:
        if text:
            self._only_calls &= text.isspace()
            self._found += self._segments.push(text)

    def _begin_call(self, name: str) -> None:
        self._found += self._segments.interrupt()
        self._calls.append((self._new_id(), name))
        self._keys = set()
        self._tell(Kind.CALL)
        self._tell(Kind.ARGUMENTS, "{")

    def _end_call(self) -> None:
        self._tell(Kind.ARGUMENTS, "}")
        self._tell(Kind.CALL_END)
        self._only_calls = True
        self._read = self._after_call if self._tools.parallel else self._nothing

    def _add_arguments(self, arguments: dict[str, Any]) -> None:
        for key, value in arguments.items():
            if self._begin_key(key):
                self._tell(Kind.ARGUMENTS, dumps(value))

    def _begin_key(self, key: str) -> bool:
        """False for one that was there already: what was told cannot be taken back, so the first counts."""
        if key in self._keys:
            return False
        self._tell(Kind.ARGUMENTS, f"{', ' if self._keys else ''}{dumps(key)}: ")
        self._keys.add(key)
        return True

    def _begin_value(self, key: str) -> None:
        parameters = self._tools.parameters.get(self._calls[-1][1], {})
        self._types = types_of(parameters, key) if self._begin_key(key) else frozenset[str]()
        self._is_fresh, self._value = True, []
        if self._types == TEXT_ONLY:
            self._tell(Kind.ARGUMENTS, '"')
        self._read = self._value_text

    def _add_text(self, text: str) -> None:
        """Texts are told as they grow; other values are known at their end."""
        if self._types == TEXT_ONLY:
            self._tell(Kind.ARGUMENTS, dumps(text)[1:-1] if text else "")
        else:
            self._value.append(text)

    def _end_value(self) -> None:
        if self._types == TEXT_ONLY:
            self._tell(Kind.ARGUMENTS, '"')
        elif self._types:
            self._tell(Kind.ARGUMENTS, as_json("".join(self._value), self._types))

    def _tell(self, kind: Kind, text: str = "") -> None:
        if text or kind is not Kind.ARGUMENTS:
            self._found.append(CallSegment(kind, text, len(self._calls) - 1, *self._calls[-1]))

    # What is held.

    def _next(self, pattern: "re.Pattern[str]") -> "re.Match[str] | None":
        return pattern.search(self._held)

    def _take(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text
