"""Who gets how many tokens in the next step. No phases: every sequence is some number of tokens behind.

Pure: no arrays, no clocks; property-tested.
"""

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

from qwick.engine.request import Sequence


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """`num_tokens` of `sequence` in this step; `is_last` when it then stands at its last known token: sample one."""

    sequence: Sequence
    num_tokens: int

    @property
    def is_last(self) -> bool:
        return self.num_tokens == self.sequence.num_behind


def plan(sequences: AbstractSequence[Sequence], step_tokens: int) -> list[PlannedRun]:
    """Share `step_tokens` rows: sequences that are one token behind first, then the others by age.

    So a decoding sequence is never held up by someone's long prompt. Every sequence is at least one token behind.
    """
    runs: list[PlannedRun] = []
    left = step_tokens
    for sequence in sorted(sequences, key=lambda s: (s.num_behind > 1, s.sequence_id)):
        count = min(sequence.num_behind, left)
        if count == 0:
            break
        runs.append(PlannedRun(sequence, count))
        left -= count
    return runs
