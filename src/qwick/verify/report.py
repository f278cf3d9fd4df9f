"""What a check found: one line each."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check ended; the values are what is shown."""

    OK = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """`figure` is what was measured, `bound` what it may be at most; None where a check counts nothing."""

    group: str
    name: str
    outcome: Outcome
    detail: str = ""
    figure: float | None = None
    bound: float | None = None


def within(group: str, name: str, figure: float, bound: float, detail: str = "") -> Check:
    """Ok when `figure` is at most `bound`; a NaN is not."""
    return Check(group, name, Outcome.OK if figure <= bound else Outcome.FAILED, detail, figure, bound)


def holds(group: str, name: str, true: bool, detail: str = "") -> Check:
    """Ok when it is true."""
    return Check(group, name, Outcome.OK if true else Outcome.FAILED, detail)


def skipped(group: str, name: str, reason: str) -> Check:
    """Not carried out, and why."""
    return Check(group, name, Outcome.SKIPPED, reason)


def failed(group: str, name: str, reason: str) -> Check:
    """Failed, and how."""
    return Check(group, name, Outcome.FAILED, reason)
