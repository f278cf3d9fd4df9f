"""One answer as it grows: token ids in, text that may be shown and tool calls out."""

from collections.abc import Callable, Iterable, Sequence

from qwick.text.detokenizer import Detokenizer
from qwick.text.segments import AnySegment, CallSegment, Kind, Segment, Segments
from qwick.text.stop import StopStrings
from qwick.text.tool_calls import ToolCall, ToolCalls


class Answer:
    """Detokenizer, segments and stop strings in a row. `reasoning` and `text` (the content) are what was given out.

    segments  splits reasoning from content, or those and tool calls; None: all of it is content (a raw prompt's
              continuation)
    stops     end the answer where they occur in the content. Reasoning likes to restate what a caller stops at
              (`Question:`), and an answer cut there would have no content at all (vllm issues 14399, 52393).
              Arguments of a tool call are not looked at either.
    begun     what the prompt has of the answer already: the beginning of a tool call that is required
    """

    def __init__(
        self,
        token_bytes: Callable[[int], bytes],
        stops: Sequence[str] = (),
        segments: Segments | ToolCalls | None = None,
        begun: str = "",
    ) -> None:
        self._detokenizer = Detokenizer(token_bytes)
        self._segments = segments
        self._stops = StopStrings(stops)
        self.text = ""
        self.reasoning = ""
        self._calls: list[tuple[CallSegment, list[str]]] = []
        self._waiting = self._give(self._split(begun)) if begun else []

    @property
    def stopped(self) -> bool:
        """Whether it has ended though the model may go on: at a stop string, or after the one call that was allowed."""
        return self._stops.found is not None or (isinstance(self._segments, ToolCalls) and self._segments.done)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """As far as they were given out."""
        return tuple(ToolCall(call.id, call.name, "".join(parts)) for call, parts in self._calls)

    def push(self, token_id: int) -> list[AnySegment]:
        """The text that `token_id` sets free; often none."""
        return self._told(self._give(self._split(self._detokenizer.push(token_id))))

    def finish(self, *, cut: bool = False) -> list[AnySegment]:
        """The last text, when no more tokens come. `cut`: though the model had not ended (ToolCalls.finish)."""
        found = self._give(self._split(self._detokenizer.finish()))
        if isinstance(self._segments, ToolCalls):
            found += self._give(self._segments.finish(cut=cut))
        elif self._segments is not None:
            found += self._give(self._segments.finish())
        return self._told(found + self._add(Kind.CONTENT, self._stops.finish()))

    def _told(self, found: list[AnySegment]) -> list[AnySegment]:
        waiting, self._waiting = self._waiting, []
        return waiting + found

    def _split(self, text: str) -> Sequence[AnySegment]:
        return [Segment(Kind.CONTENT, text)] if self._segments is None else self._segments.push(text)

    def _give(self, segments: Iterable[AnySegment]) -> list[AnySegment]:
        found: list[AnySegment] = []
        for segment in segments:
            if isinstance(segment, CallSegment):
                if self._stops.found is None:
                    found += self._add(Kind.CONTENT, self._stops.finish())  # no stop string goes on behind a call
                    found.append(self._count(segment))
            else:
                kind, text = segment
                found += self._add(kind, self._stops.push(text) if kind is Kind.CONTENT else text)
        return found

    def _count(self, segment: CallSegment) -> CallSegment:
        if segment.kind is Kind.CALL:
            self._calls.append((segment, []))
        else:
            self._calls[-1][1].append(segment.text)
        return segment

    def _add(self, kind: Kind, text: str) -> list[AnySegment]:
        if kind is Kind.CONTENT:
            self.text += text
        else:
            self.reasoning += text
        return [Segment(kind, text)] if text else []
