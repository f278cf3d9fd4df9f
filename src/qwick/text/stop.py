"""Stop strings, found across the borders of tokens."""

from collections.abc import Sequence

from qwick.errors import UsageError


class StopStrings:
    """Lets text through up to the first stop string, holding back what may still become one.

    Of several stop strings the one that *ends* first wins, the longest of those; no other rule gives an
    answer that does not depend on how the text was cut into pieces. `found` names it; it is not given out itself.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise UsageError("a stop string is empty: it would stop every answer at once")
        self._stops = tuple(stops)
        self._held: str = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """The text that certainly comes before any stop string; nothing once one was found."""
        if self.found is not None or not self._stops:
            return "" if self.found is not None else text
        text = self._held + text
        matches = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if matches:
            _, start, self.found = min(matches)
            self._held = ""
            return text[:start]
        keep = self._num_held(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back and became no stop string."""
        rest, self._held = self._held, ""
        return rest

    def _num_held(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = max(map(len, self._stops)) - 1
        for count in range(min(longest, len(text)), 0, -1):
            end = text[-count:]
            if any(stop.startswith(end) for stop in self._stops):
                return count
        return 0
