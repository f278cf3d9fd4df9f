"""What the request, not the model, decides about the next tokens of an answer: which are allowed, and which must come.

An answer that thinks first is free until its thought ends, by itself, at its budget, or because it repeats itself. What
holds it to a grammar, or its tool calls to theirs, begins behind the thought.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from qwick.engine.constraint import Constraint, ConstraintError
from qwick.engine.repetition import Repetition, answer_repetition
from qwick.errors import UsageError
from qwick.sampling.sampler import Allowed

_MOST_RESERVED = 512  # tokens of the room for thought and answer that a budget leaves to the answer; at least a quarter


class Cut(StrEnum):
    """Why an answer ended before its end."""

    GRAMMAR = "grammar"  # it could not go on: a limit of the parser
    LOOP = "loop"  # it repeated itself


class ThoughtEnd(StrEnum):
    """Why a thought was ended."""

    BUDGET = "budget"
    LOOP = "loop"


@dataclass(frozen=True, slots=True)
class Thought:
    """An answer begins inside its thought: `end` is the id that ends it.

    lead     ids that follow it in the model's own form, before an answer that has a grammar or whose thought was ended
    budget   tokens that the thought may take; None: as many as there are
    closing  ids before `end` when it is ended: a sentence that says so, where there is room
    """

    end: int
    lead: tuple[int, ...] = ()
    budget: int | None = None
    closing: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 1:
            raise UsageError(f"the thinking budget is {self.budget}; it must be at least 1 token")


class Guidance:
    """Of one sequence; `push` gets each token of its answer.

    constraint     of what is behind the thought
    thought        that the answer begins with; None: it does not think
    must_follow    something of the constraint must come; else it may also be nothing, in any form
    stops          ids that end the answer, or begin what must come: instead of them in a thought comes its end
    room           most tokens of thought and answer
    cut            why it is to be ended here; None: it goes on
    thought_ended  why the thought was ended; None: it was not
    """

    def __init__(
        self,
        constraint: Constraint | None,
        thought: Thought | None = None,
        stops: frozenset[int] = frozenset(),
        *,
        room: int,
        loop_guard: bool = False,
        must_follow: bool = True,
    ) -> None:
        self._constraint, self._stops, self._room = constraint, stops, room
        self._must_follow = must_follow and constraint is not None
        self._thought = thought  # while it lasts
        self._num_tokens = 0
        self._closing: tuple[int, ...] = ()
        self._limit: int | None = None
        self._ahead: deque[int] = deque()  # tokens that must come
        self._num_lead = 0  # of them, those before the grammar begins
        self._allowed: Allowed | None = None
        self._repetition = (Repetition() if thought else answer_repetition()) if loop_guard else None
        self.cut: Cut | None = None
        self.thought_ended: ThoughtEnd | None = None
        if thought is None:
            self._look_ahead()
        else:
            self._divide(thought)

    @property
    def forced(self) -> int | None:
        """The token that must come next."""
        return self._ahead[0] if self._ahead else None

    @property
    def allowed(self) -> Allowed | None:
        """Which tokens may come next, where none must; None: all."""
        return self._allowed

    @property
    def loose(self) -> str:
        """What of its form the answer is not held to."""
        return self._constraint.loose if self._constraint is not None else ""

    @property
    def is_over(self) -> bool:
        """Whether the last token ended what the grammar describes."""
        return self._constraint is not None and self._constraint.is_over

    def instead(self, token_id: int) -> int:
        """What comes of a token drawn: an answer that must follow the thought cannot end inside it."""
        is_early = self._thought is not None and self._must_follow and token_id in self._stops
        return self._thought.end if self._thought is not None and is_early else token_id

    def push(self, token_id: int) -> None:
        """One more token: drawn, or the forced one."""
        self._num_tokens += 1
        was_forced = bool(self._ahead)
        if was_forced:
            self._ahead.popleft()
        repeats = self._repetition is not None and self._repetition.push(token_id) is not None
        if self._thought is not None:
            self._think(self._thought, token_id, repeats=repeats and not was_forced)
        elif self._num_lead:
            self._num_lead -= 1
        else:
            self._accept(token_id)
            if repeats:
                self.cut = self.cut or Cut.LOOP
        if self._thought is None and not self._ahead:
            self._look_ahead()

    def _divide(self, thought: Thought) -> None:
        """The room: so much for the thought, then what ends it, then the answer."""
        reserved = min(_MOST_RESERVED, self._room // 4) + 1 + len(thought.lead)
        if len(thought.closing) + reserved <= self._room // 2:
            self._closing = thought.closing
        if thought.budget is not None:
            self._limit = max(min(thought.budget, self._room - reserved - len(self._closing)), 1)

    def _think(self, thought: Thought, token_id: int, *, repeats: bool) -> None:
        if token_id == thought.end:
            self._thought = None
            if self._must_follow or self.thought_ended is not None:
                self._force(thought.lead)
                self._num_lead = len(thought.lead)
            if self._repetition is not None:
                self._repetition = answer_repetition()
        elif self.thought_ended is None and (repeats or self._num_tokens == self._limit):
            self.thought_ended = ThoughtEnd.LOOP if repeats else ThoughtEnd.BUDGET
            self._force((*self._closing, thought.end))

    def _force(self, token_ids: Iterable[int]) -> None:
        self._ahead.extend(token_ids)

    def _accept(self, token_id: int) -> None:
        if self._constraint is None:
            return
        try:
            self._constraint.accept(token_id)
        except ConstraintError:
            self.cut = Cut.GRAMMAR

    def _look_ahead(self) -> None:
        """Now, so that what goes wrong ends the answer here and no step fails."""
        constraint, self._allowed = self._constraint, None
        if constraint is None or constraint.is_over or self.cut:
            return
        try:
            self._force(constraint.forced())
            if not self._ahead:
                self._allowed = constraint.allowed()
        except ConstraintError:
            self.cut = Cut.GRAMMAR
