"""Notices that a text has come to repeat itself, token by token, whatever the length of what it repeats.

Small models that think are known to get caught so (the cards of 0.8B and 2B warn of it), and use up all they have.
"""

import numpy as np

LONGEST_PERIOD = 512  # tokens
LEAST_REPEATS = 8  # of a period, the first time included
LEAST_TOKENS = 512  # that they take together
# Of an answer: tables of zeros, equal rows, rules of dashes have a right to repeat, and what is cut is lost
# (tests/engine/test_loops.py has such texts). A loop goes on for ever, so it is found all the same.
ANSWER_REPEATS = 16
ANSWER_TOKENS = 4096


class Repetition:
    """`push` costs some microseconds (a comparison with the last LONGEST_PERIOD tokens), however long the text."""

    def __init__(
        self,
        longest_period: int = LONGEST_PERIOD,
        least_repeats: int = LEAST_REPEATS,
        least_tokens: int = LEAST_TOKENS,
    ) -> None:
        periods = np.arange(1, longest_period + 1)
        # After how many tokens in a row that equal the one a period before them a text counts as repeating itself.
        self._wanted = np.maximum(periods * least_repeats, least_tokens) - periods
        self._alike = np.zeros(longest_period, np.int64)
        self._recent = np.full(2 * longest_period, -1, np.int64)  # newest first from `_at` on
        self._at = longest_period
        self._longest = longest_period

    def push(self, token_id: int) -> int | None:
        """One more token. The shortest period that the text repeats by now; None while it does not."""
        before = self._recent[self._at : self._at + self._longest]
        self._alike += 1
        self._alike *= before == token_id
        if self._at == 0:
            self._recent[self._longest + 1 :] = self._recent[: self._longest - 1]
            self._at = self._longest + 1
        self._at -= 1
        self._recent[self._at] = token_id
        found = self._alike >= self._wanted
        return int(found.argmax()) + 1 if found.any() else None


def answer_repetition() -> Repetition:
    """More patient than that of a thought."""
    return Repetition(least_repeats=ANSWER_REPEATS, least_tokens=ANSWER_TOKENS)
