"""What an answer must look like (Grammar), and who keeps it so: the engine sees only which token ids are allowed.

Whoever makes an engine brings the `Constraints`, because they need the tokens' text (`constraining.py`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from qwick.errors import UsageError
from qwick.sampling.sampler import Allowed

MAX_GRAMMAR_BYTES = 64 << 10  # a schema of 64 KiB compiles within 0.1 s; texts from outside may be made to hurt
MAX_CALLS_BYTES = 1 << 20  # of all tools; they are cut down to what can be held to in time
MOST_KEPT_GRAMMARS = 16  # by who prepares them, for the next request that has the same


class GrammarKind(StrEnum):
    """How a grammar's text is to be read. JSON_OBJECT has none: any object.

    CALLS: one tool call behind its first tag; JSON of `tools`, the schema of each one's arguments by its name, and
    `end`, the id that ends a call. Of schemas it is held to what can be: `Constraint.loose` tells the rest.
    """

    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"
    GBNF = "gbnf"
    CALLS = "tools"


@dataclass(frozen=True, slots=True)
class Grammar:
    """The answer, all of it and without reasoning, is one of this grammar. Raises UsageError for what cannot be one."""

    kind: GrammarKind
    text: str = ""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "kind", GrammarKind(self.kind))
        except ValueError:
            raise UsageError(f"a grammar of kind {self.kind!r:.40}; known are {', '.join(GrammarKind)}") from None
        size = len(self.text.encode(errors="replace"))
        most = MAX_CALLS_BYTES if self.kind is GrammarKind.CALLS else MAX_GRAMMAR_BYTES
        if size > most:
            raise UsageError(f"the {self.kind} has {size:,} bytes; at most {most:,} are taken")
        takes_text = self.kind is not GrammarKind.JSON_OBJECT
        if bool(self.text) != takes_text:
            raise UsageError(f"a {self.kind} " + ("needs a text: it is empty" if takes_text else "takes no text"))


class ConstraintError(Exception):
    """A grammar cannot go on: its parser ran into a limit, or nothing fits any more."""


class Constraint(Protocol):
    """Of one answer, at its end so far. Every call may raise ConstraintError, and then no more are made.

    loose  what of the grammar it does not hold to, and why; "": all of it is kept
    """

    loose: str

    def forced(self) -> list[int]:
        """Tokens that must come next, whatever the model says; at the grammar's end a stop token. Often none."""
        ...

    def allowed(self) -> Allowed | None:
        """At least one; None: all. A stop token is among them where the answer may end."""
        ...

    def accept(self, token_id: int) -> None:
        """One more token, an allowed one."""
        ...

    def again(self) -> "Constraint":
        """A new one of the same grammar, at its beginning."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the last token ended the answer; of a grammar of calls, the call."""
        ...


class Constraints(Protocol):
    """Of one vocabulary."""

    def prepare(self, grammar: Grammar) -> None:
        """So that `start` takes no time; from any thread. Raises nothing: what is wrong `start` tells."""
        ...

    def start(self, grammar: Grammar) -> Constraint:
        """Raises UsageError naming what is wrong with the grammar."""
        ...
