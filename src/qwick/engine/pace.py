"""How many rows of prompts a step may have beside sequences that are being answered.

A long prompt is read in pieces, so that who reads an answer does not wait for someone else's question. Pieces must not
be too small either: a step reads all weights, whatever it holds. Both costs are measured on the steps themselves.
"""

MOST_DELAY = 2.5  # a step with prompt rows may take so many times what one without takes
LEAST_ROWS = 16  # of a piece, however slow the machine: a prompt has to come in, too
_AIM = 0.8  # of the delay allowed: what was measured is never quite what comes
_NEW = 0.25  # weight of the newest step in the running means


class Pace:
    """Learns from every step what rows cost, and says how many fit."""

    def __init__(self, step_tokens: int) -> None:
        self._step_tokens = step_tokens
        self._alone: float | None = None  # seconds of a step without prompt rows
        self._row: float | None = None  # seconds of one prompt row beside that

    def note(self, num_short: int, num_long: int, seconds: float) -> None:
        """A step had `num_short` rows of sequences one token behind and `num_long` others, and took `seconds`."""
        if num_long == 0:
            self._alone = _mean(self._alone, seconds)
        elif num_short == 0 or self._alone is not None:
            base = self._alone if num_short and self._alone is not None else 0.0
            self._row = _mean(self._row, max(seconds - base, 0.0) / num_long)

    def long_tokens(self, num_short: int) -> int:
        """How many rows of prompts the next step may have beside `num_short` others."""
        if num_short == 0:
            return self._step_tokens
        if self._alone is None or not self._row:
            return min(LEAST_ROWS, self._step_tokens)
        rows = int(_AIM * (MOST_DELAY - 1) * self._alone / self._row)
        return min(max(rows, LEAST_ROWS), self._step_tokens)

    def rows_within(self, seconds: float) -> int:
        """About how many rows of a prompt are read in that time, alone; at least LEAST_ROWS."""
        rows = LEAST_ROWS if not self._row else int(seconds / self._row)
        return min(max(rows, LEAST_ROWS), self._step_tokens)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else (1 - _NEW) * old + _NEW * new
