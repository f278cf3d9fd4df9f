"""What is said of thoughts and answers that did not end by themselves, or not in their form, in `warnings`."""

from collections.abc import Iterator, Sequence

from qwick.engine.guidance import Cut, ThoughtEnd
from qwick.streams import Completion

_THOUGHTS = {
    ThoughtEnd.BUDGET: "the thought was ended: its tokens were used up",
    ThoughtEnd.LOOP: "the thought was ended: it repeated itself",
}
_ANSWERS = {
    Cut.LOOP: "the answer was cut: it repeated itself (loop_guard false lets it go on)",
    Cut.GRAMMAR: "the answer was cut: its grammar could not be followed any further",
}


def interventions(completions: Sequence[Completion]) -> list[str]:
    """What was done to answers, in one word each, for logs and metrics."""
    return [kind for completion in completions for kind, _ in _interventions(completion)]


def warnings_of(completion: Completion, index: int | None = None) -> list[str]:
    """What was done to an answer, in sentences; `index`: of the choice, where there are several."""
    choice = "" if index is None else f"choice {index}: "
    return [choice + text for _, text in _interventions(completion)]


def _interventions(completion: Completion) -> Iterator[tuple[str, str]]:
    stats = completion.stats
    if stats.thought_ended is not None:
        yield f"thought_{stats.thought_ended}", _THOUGHTS[stats.thought_ended]
    if stats.cut is not None:
        yield f"answer_{stats.cut}", _ANSWERS[stats.cut]
    if stats.loose:
        yield "calls_loose", f"calls were not held to all that the tools say: {stats.loose}"
