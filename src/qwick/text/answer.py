"""One answer as it grows: token ids in, text that may be shown out."""

from collections.abc import Callable, Sequence

from qwick.text.detokenizer import Detokenizer
from qwick.text.stop import StopStrings


class Answer:
    """Detokenizer and stop strings in a row. `text` is everything given out so far."""

    def __init__(self, token_bytes: Callable[[int], bytes], stops: Sequence[str] = ()) -> None:
        self._detokenizer = Detokenizer(token_bytes)
        self._stops = StopStrings(stops)
        self.text = ""

    @property
    def stopped(self) -> bool:
        return self._stops.found is not None

    def push(self, token_id: int) -> str:
        """The text that `token_id` sets free."""
        return self._give(self._stops.push(self._detokenizer.push(token_id)))

    def finish(self) -> str:
        """The last text, when no more tokens come."""
        return self._give(self._stops.push(self._detokenizer.finish()) + self._stops.finish())

    def _give(self, text: str) -> str:
        self.text += text
        return text
