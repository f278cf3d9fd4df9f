"""One answer as it grows: token ids in, text that may be shown out."""

from collections.abc import Callable, Iterable, Sequence

from qwick.text.detokenizer import Detokenizer
from qwick.text.segments import Kind, Segment, Segments
from qwick.text.stop import StopStrings


class Answer:
    """Detokenizer, segments and stop strings in a row. `reasoning` and `text` (the content) are what was given out.

    segments  splits reasoning from content; None: all of it is content (a raw prompt's continuation)
    stops     end the answer where they occur in the content. Reasoning likes to restate what a caller stops at
              (`Question:`), and an answer cut there would have no content at all (vllm issues 14399, 52393).
    """

    def __init__(
        self, token_bytes: Callable[[int], bytes], stops: Sequence[str] = (), segments: Segments | None = None
    ) -> None:
        self._detokenizer = Detokenizer(token_bytes)
        self._segments = segments
        self._stops = StopStrings(stops)
        self.text = ""
        self.reasoning = ""

    @property
    def stopped(self) -> bool:
        return self._stops.found is not None

    def push(self, token_id: int) -> list[Segment]:
        """The text that `token_id` sets free; often none."""
        return self._give(self._split(self._detokenizer.push(token_id)))

    def finish(self) -> list[Segment]:
        """The last text, when no more tokens come."""
        found = self._give(self._split(self._detokenizer.finish()))
        if self._segments is not None:
            found += self._give(self._segments.finish())
        return found + self._add(Kind.CONTENT, self._stops.finish())

    def _split(self, text: str) -> list[Segment]:
        return [Segment(Kind.CONTENT, text)] if self._segments is None else self._segments.push(text)

    def _give(self, segments: Iterable[Segment]) -> list[Segment]:
        found: list[Segment] = []
        for kind, text in segments:
            found += self._add(kind, self._stops.push(text) if kind is Kind.CONTENT else text)
        return found

    def _add(self, kind: Kind, text: str) -> list[Segment]:
        if kind is Kind.CONTENT:
            self.text += text
        else:
            self.reasoning += text
        return [Segment(kind, text)] if text else []
