"""Tool calls in an answer: it is free until a token begins one; then a grammar holds it, to the call's end."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

import numpy as np

from qwick.engine.constraint import Constraint, ConstraintError, Grammar
from qwick.sampling.sampler import Allowed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Calls:
    """What an answer may call, and the ids around it.

    grammar   of a call behind its beginning, to its end
    begin     begins one
    between   what stands between two
    stop      ends an answer of calls
    required  the answer is calls, and no text
    several   there may be more than one; else the answer ends behind it
    """

    grammar: Grammar
    begin: int
    between: tuple[int, ...]
    stop: int
    required: bool = False
    several: bool = True


class Unheld:
    """A `Constraint` that holds to nothing; `loose`: why."""

    is_over = False

    def __init__(self, loose: str) -> None:
        self.loose = loose

    def again(self) -> "Unheld":
        return self

    def forced(self) -> list[int]:
        return []

    def allowed(self) -> Allowed | None:
        return None

    def accept(self, token_id: int) -> None:
        """Any."""


class _Place(Enum):
    FREE = auto()
    DUE = auto()  # a call must come
    CHOICE = auto()  # a call, or text that is held to something
    TEXT = auto()  # of that kind
    CALL = auto()
    BEHIND = auto()  # a call, where no text may follow
    END = auto()


class CallsConstraint:
    """A `Constraint` of text and calls, or of calls only, or (`text`) of either calls or what that allows.

    call   of one call
    loose  what calls are not held to, or why one no longer was
    """

    def __init__(self, calls: Calls, call: Constraint, vocab_size: int, text: Constraint | None = None) -> None:
        self._calls, self._call, self._vocab_size, self._text = calls, call, vocab_size, text
        self._place = _Place.DUE if calls.required else _Place.FREE if text is None else _Place.CHOICE
        self._due = [calls.begin]
        self.loose = call.loose

    def again(self) -> "CallsConstraint":
        text = None if self._text is None else self._text.again()
        return CallsConstraint(self._calls, self._call.again(), self._vocab_size, text)

    @property
    def is_over(self) -> bool:
        return self._place is _Place.END or (self._text is not None and self._text.is_over)

    def forced(self) -> list[int]:
        match self._place:
            case _Place.DUE:
                return self._due
            case _Place.CALL:
                return self._or_free(self._call.forced, [])
            case _Place.BEHIND if not self._calls.several:
                return [self._calls.stop]
            case _Place.TEXT if self._text is not None:
                return self._text.forced()
            case _:
                return []

    def allowed(self) -> Allowed | None:
        match self._place:
            case _Place.CALL:
                return self._or_free(self._call.allowed, None)
            case _Place.BEHIND:
                return self._only(self._calls.stop, self._next_call[0], self._calls.begin)
            case _Place.TEXT if self._text is not None:
                return self._text.allowed()
            case _Place.CHOICE if self._text is not None:
                return self._call_or(self._text)
            case _:
                return None

    def accept(self, token_id: int) -> None:
        match self._place:
            case _Place.CALL:
                self._or_free(lambda: self._call.accept(token_id), None)
                if self._place is _Place.CALL and self._call.is_over:
                    self._place = _Place.FREE if self._is_lenient and self._calls.several else _Place.BEHIND
            case _Place.FREE | _Place.DUE | _Place.CHOICE | _Place.BEHIND if token_id == self._calls.begin:
                self._call = self._call.again()
                self._place = _Place.CALL
            case _Place.BEHIND if token_id == self._calls.stop:
                self._place = _Place.END
            case _Place.BEHIND:
                self._place, self._due = _Place.DUE, self._next_call[1:]
            case _Place.CHOICE | _Place.TEXT if self._text is not None:
                self._place = _Place.TEXT
                self._text.accept(token_id)
            case _:
                pass

    @property
    def _next_call(self) -> list[int]:
        return [*self._calls.between, self._calls.begin]

    @property
    def _is_lenient(self) -> bool:
        """Whether anything may stand outside of calls."""
        return self._text is None and not self._calls.required

    def _or_free(self, ask: Callable[[], T], free: T) -> T:
        """Where text is free a call that cannot be followed any longer is let go, as text."""
        try:
            return ask()
        except ConstraintError as error:
            if not self._is_lenient:
                raise
            self._place, self.loose = _Place.FREE, f"a call was let go: {error}"
            return free

    def _call_or(self, text: Constraint) -> Allowed | None:
        """The first token: what begins a call, or what begins the text."""
        forced = text.forced()
        allowed = self._only(forced[0]) if forced else text.allowed()
        if allowed is None:
            return None
        allowed = allowed.copy()
        allowed[self._calls.begin] = True
        return allowed

    def _only(self, *token_ids: int) -> Allowed:
        allowed = np.zeros(self._vocab_size, np.bool_)
        allowed[list(token_ids)] = True
        return allowed
