"""How many rows of prompts a step may have beside sequences that are being answered.

A long prompt is read in pieces, so that who reads an answer does not wait for someone else's question. Pieces must not
be too small either: a step reads all weights, whatever it holds. Both costs are measured on the steps themselves.
"""

MOST_DELAY = 2.5  # a step with prompt rows may take so many times what one without takes
LEAST_ROWS = 12  # of a piece, however slow the machine: a prompt has to come in, too (figures in docs/LOG.md)
_AIM = 0.8  # of the delay allowed: what was measured is never quite what comes
_NEW = 0.25  # weight of the newest step in the running means


class Pace:
    """Learns from every step what rows cost, and says how many fit."""

    def __init__(self, step_tokens: int) -> None:
        self._step_tokens = step_tokens
        self._alone: dict[int, float] = {}  # seconds of a step without prompt rows, by the number of its others
        self._row: float | None = None  # seconds of one prompt row where there are only such
        self._row_beside: float | None = None  # beside others, where the rows are few

    def note(self, num_short: int, num_long: int, seconds: float) -> None:
        """A step had `num_short` rows of sequences one token behind and `num_long` others, and took `seconds`."""
        if num_long == 0:
            self._alone[num_short] = _mean(self._alone.get(num_short), seconds)
        elif num_short == 0:
            self._row = _mean(self._row, seconds / num_long)
        elif self._alone:
            beside = max(seconds - self._seconds_alone(num_short), 0.0) / num_long
            self._row_beside = _mean(self._row_beside, beside)

    def long_tokens(self, num_short: int) -> int:
        """How many rows of prompts the next step may have beside `num_short` others."""
        if num_short == 0:
            return self._step_tokens
        row = self._row_beside or self._row
        if not self._alone or not row:
            return min(LEAST_ROWS, self._step_tokens)
        rows = int(_AIM * (MOST_DELAY - 1) * self._seconds_alone(num_short) / row)
        return min(max(rows, LEAST_ROWS), self._step_tokens)

    def rows_within(self, seconds: float) -> int:
        """About how many rows of a prompt are read in that time, alone; at least LEAST_ROWS."""
        row = self._row or self._row_beside
        rows = LEAST_ROWS if not row else int(seconds / row)
        return min(max(rows, LEAST_ROWS), self._step_tokens)

    def _seconds_alone(self, num_short: int) -> float:
        """Where so many were never alone: not more than it would be. More rows take longer, each of them less long."""
        fewer = max((count for count in self._alone if count <= num_short), default=0)
        if fewer:
            return self._alone[fewer]
        more = min(self._alone)
        return self._alone[more] * num_short / more


def _mean(old: float | None, new: float) -> float:
    return new if old is None else (1 - _NEW) * old + _NEW * new
