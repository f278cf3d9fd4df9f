"""Who gets how many tokens in the next step. No phases: every sequence is some number of tokens behind.

Pure: no arrays, no clocks; property-tested.
"""

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

from qwick.engine.request import Sequence


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """`num_tokens` of `sequence` in this step; `is_last` when it then stands at its last known token: sample one.

    snapshots  (n, slot): after n of these tokens the state is wanted in that slot
    keeps_end  the state after all of them, which the sequence's own slot then has, is wanted too
    """

    sequence: Sequence
    num_tokens: int
    snapshots: tuple[tuple[int, int], ...] = ()
    keeps_end: bool = False

    @property
    def is_last(self) -> bool:
        return self.num_tokens == self.sequence.num_behind and not self.sequence.reads_only


def plan(sequences: AbstractSequence[Sequence], step_tokens: int, long_tokens: int) -> list[PlannedRun]:
    """Share `step_tokens` rows: those that decode come first, then up to `long_tokens` rows for others.

    A row for each that is one token behind, a few where tokens were forced. So a decoding sequence is never held up by
    someone's long prompt. Of the others the oldest gets half of the rows at least, so that everybody's turn comes; the
    rest goes to those that need fewest. Every sequence is at least one token behind.
    """
    by_age = sorted(sequences, key=lambda sequence: sequence.sequence_id)
    runs = _short([sequence for sequence in by_age if sequence.is_short], step_tokens)
    left = min(step_tokens - sum(run.num_tokens for run in runs), long_tokens)
    longer = [sequence for sequence in by_age if not sequence.is_short]
    for sequence, count in _shares(longer, left):
        runs.append(PlannedRun(sequence, count))
    return runs


def _short(sequences: list[Sequence], rows: int) -> list[PlannedRun]:
    """A row for each, then what rows are left for their other tokens."""
    left = rows - len(sequences)
    runs: list[PlannedRun] = []
    for sequence in sequences[:rows]:
        more = max(min(sequence.num_behind - 1, left), 0)
        runs.append(PlannedRun(sequence, 1 + more))
        left -= more
    return runs


def _shares(sequences: list[Sequence], rows: int) -> list[tuple[Sequence, int]]:
    """Rows for each, oldest first in `sequences`; those without any are left out."""
    if not sequences or rows == 0:
        return []
    oldest, *others = sequences
    counts = {oldest: min(oldest.num_alike, rows - rows // 2)}
    left = rows - counts[oldest]
    for sequence in sorted(others, key=lambda sequence: (sequence.num_alike, sequence.sequence_id)):
        counts[sequence] = min(sequence.num_alike, left)
        left -= counts[sequence]
    counts[oldest] += min(oldest.num_alike - counts[oldest], left)
    return [(sequence, counts[sequence]) for sequence in sequences if counts[sequence]]
