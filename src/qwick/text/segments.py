"""An answer split into reasoning and content, as the official templates read it back.

They write `<think>\\nreasoning\\n</think>\\n\\ncontent`. Of an earlier answer they take as the reasoning what lies
before `</think>`, without line breaks around it; as the content what follows, without leading line breaks.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import NamedTuple, TypeAlias

OPEN, CLOSE = "<think>", "</think>"


class Kind(StrEnum):
    """What a stretch of an answer is."""

    REASONING = "reasoning"
    CONTENT = "content"
    CALL = "tool_call"  # begins
    ARGUMENTS = "arguments"
    CALL_END = "tool_call_end"


class Segment(NamedTuple):
    """A stretch of an answer, reasoning or content; never empty."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class CallSegment:
    """A tool call begins, its arguments grow by `text` (joined, one JSON object), or it has ended.

    index  of the call in the answer: 0, 1, …
    id     of the call, for the tool's answer to name
    """

    kind: Kind
    text: str
    index: int
    id: str
    name: str


AnySegment: TypeAlias = Segment | CallSegment


class _Phase(Enum):
    OPENING = auto()  # nothing but line breaks and a part of `<think>` so far
    REASONING = auto()
    GAP = auto()  # line breaks after `</think>`
    CONTENT = auto()


def begins_in_thought(prompt: str) -> bool:
    """Whether what follows this prompt is reasoning, until the tag is closed."""
    return prompt.rstrip().endswith(OPEN)


class Segments:
    """Push text, get segments. What they say does not depend on where the text was cut.

    `prompt` decides how the answer begins: one that ends with `<think>` leaves it to the model to close the tag; one
    that ends with `</think>` has done the reasoning; after any other the model may open it itself, at the very start.
    Tags anywhere else are text. Reasoning that never ends is reasoning. A tool call ends it too (`interrupt`).
    """

    def __init__(self, prompt: str = "") -> None:
        self._held = ""
        self._begun = False  # whether reasoning other than leading line breaks was seen
        self._late_close = False  # whether a `</think>` may come after the reasoning has ended otherwise
        self._phase = (
            _Phase.REASONING
            if begins_in_thought(prompt)
            else _Phase.GAP
            if prompt.rstrip().endswith(CLOSE)
            else _Phase.OPENING
        )

    def push(self, text: str) -> list[Segment]:
        """What is certain now: up to one segment of each kind, in order."""
        self._held += text
        found: list[Segment] = []
        if self._phase is _Phase.OPENING:
            self._open()
        if self._phase is _Phase.REASONING:
            found += _segment(Kind.REASONING, self._reason())
        if self._phase is _Phase.GAP:
            self._skip()
        if self._phase is _Phase.CONTENT:
            found += _segment(Kind.CONTENT, self._take(len(self._held)))
        return found

    def finish(self) -> list[Segment]:
        """What was held back, when no more text comes."""
        rest = self._take(len(self._held))
        if self._phase is _Phase.REASONING:
            return _segment(Kind.REASONING, rest.rstrip("\n"))
        return _segment(Kind.CONTENT, rest)

    def interrupt(self) -> list[Segment]:
        """What was held back, when something that is no text of either kind comes; then content follows.

        A `</think>` right behind is taken for the end of the reasoning that was interrupted.
        """
        found = [segment for segment in self.finish() if segment.text.strip("\n")]
        self._late_close |= self._phase is _Phase.REASONING
        if any(kind is Kind.CONTENT for kind, _ in found):
            self._phase = _Phase.CONTENT
        elif self._phase is not _Phase.CONTENT:
            self._phase = _Phase.GAP
        return found

    def _skip(self) -> None:
        """Leave out what stands between the reasoning and the content."""
        self._held = self._held.lstrip("\n")
        if self._late_close and self._held.startswith(CLOSE):
            self._late_close = False
            self._held = self._held[len(CLOSE) :].lstrip("\n")
        if self._held and not (self._late_close and CLOSE.startswith(self._held)):
            self._phase = _Phase.CONTENT

    def _open(self) -> None:
        start = self._held.lstrip("\n")
        if start.startswith(OPEN):
            self._held = start[len(OPEN) :]
            self._phase = _Phase.REASONING
        elif not OPEN.startswith(start):
            self._phase = _Phase.CONTENT

    def _reason(self) -> str:
        """Reasoning that is certain; moves on at `</think>`."""
        if not self._begun:
            self._held = self._held.lstrip("\n")
        at = self._held.find(CLOSE)
        if at >= 0:
            text = self._take(at).rstrip("\n")
            self._take(len(CLOSE))
            self._phase = _Phase.GAP
        else:
            text = self._take(len(self._held) - _undecided(self._held))
        self._begun |= bool(text)
        return text

    def _take(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text


def _undecided(text: str) -> int:
    """Length of the end that may turn out to be line breaks before `</think>`, and a beginning of it."""
    tag = next(n for n in range(len(CLOSE) - 1, -1, -1) if text.endswith(CLOSE[:n]))
    before = text[: len(text) - tag]
    return tag + len(before) - len(before.rstrip("\n"))


def _segment(kind: Kind, text: str) -> list[Segment]:
    return [Segment(kind, text)] if text else []
