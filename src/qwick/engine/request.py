"""What was asked (Request), how far it has come (Sequence), what a step tells (Event)."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from time import perf_counter

import numpy as np

from qwick.cache.prefix import Miss
from qwick.engine.calls import Calls
from qwick.engine.constraint import Grammar
from qwick.engine.guidance import Cut, Guidance, Thought, ThoughtEnd
from qwick.ops.contract import Int32, Role
from qwick.sampling.logprobs import Scored
from qwick.sampling.params import SamplingParams
from qwick.sampling.penalties import Penalties

MOST_FORCED_ROWS = 32  # of a step, for the forced tokens of one sequence; more than that is read as a prompt is


class Finish(StrEnum):
    """Why a sequence ended; the values are those of the OpenAI API."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how to continue it.

    boundaries  after so many ids of the prompt a later one may part from it: where messages begin, and where the next
                turn of a chat will write something else. There the engine takes snapshots that are worth their memory.
    top_logprobs           log-probabilities of the tokens are wanted, with those of so many likeliest; None: none
    prompt_logprobs_from   and of the prompt's own tokens from this place (at least 1) on; None: none
    thought    that the answer begins with; None: it has none, or nothing depends on it
    grammar    what the answer behind the thought must look like; None: anything
    calls      of tools, which are held to their form wherever the answer makes them; with a grammar: instead of it
    loop_guard whether a thought, or an answer, that repeats itself is ended (engine/repetition.py)
    """

    token_ids: tuple[int, ...]
    sampling: SamplingParams
    boundaries: tuple[int, ...] = ()
    top_logprobs: int | None = None
    prompt_logprobs_from: int | None = None
    thought: Thought | None = None
    grammar: Grammar | None = None
    loop_guard: bool = False
    calls: Calls | None = None

    @property
    def grammars(self) -> tuple[Grammar, ...]:
        """All that it names."""
        return tuple(found for found in (self.grammar, self.calls and self.calls.grammar) if found is not None)


@dataclass(slots=True)
class Stats:
    """Counts of tokens and seconds of wall clock. The first token comes with the prompt's last step.

    cached_tokens  of the prompt's tokens, those that were not read because they were remembered
    miss           why it was not more of them; None where all that could be was
    queue_seconds  before the first step
    preemptions    how often the sequence made room for older ones and was read again
    forced_tokens  of the generated ones, those that were not drawn because only they could come
    cut            why the engine ended the answer before its end; None where it did not
    thought_ended  why it ended the thought, so that the answer began; None where it did not
    loose          what of the tools' schemas the calls were not held to, in words; "": of none
    """

    prompt_tokens: int
    generated_tokens: int = 0
    prompt_seconds: float = 0.0
    decode_seconds: float = 0.0
    cached_tokens: int = 0
    miss: Miss | None = None
    queue_seconds: float = 0.0
    preemptions: int = 0
    forced_tokens: int = 0
    cut: Cut | None = None
    thought_ended: ThoughtEnd | None = None
    loose: str = ""

    def copy(self) -> "Stats":
        """As it is now: the sequence's own goes on counting."""
        return replace(self)


@dataclass(frozen=True, slots=True)
class Event:
    """One new token of one sequence, why it was the last (if it was), and the sequence's counts so far.

    scored         its log-probability and those of the likeliest, if the request asked
    prompt_scored  with the first token the same of the prompt's tokens, from `Request.prompt_logprobs_from` on
    """

    sequence_id: int
    token_id: int
    stats: Stats
    finish: Finish | None = None
    scored: Scored | None = None
    prompt_scored: tuple[Scored, ...] | None = None


@dataclass(slots=True, eq=False)
class Sequence:
    """A request under way or waiting: tokens known so far, how many of them the cache has seen, and what it holds.

    reads_only  nothing is wanted but that the prompt is read
    guidance    what the request says about the answer's tokens; None: nothing
    slot        the state after all tokens that the cache has seen; None while it waits
    snapshots   places of the prompt, ascending, after which the state is wanted
    last_time   when its last token came, or it was asked
    """

    sequence_id: int
    request: Request
    reads_only: bool = False
    guidance: Guidance | None = None
    token_ids: list[int] = field(init=False)
    pages: list[int] = field(default_factory=list[int])
    slot: int | None = None
    num_cached: int = 0
    snapshots: list[int] = field(default_factory=list[int])
    stats: Stats = field(init=False)
    penalties: Penalties | None = field(init=False)  # of the logits; brought up to date when a batch wants them
    prompt_ids: Int32 = field(init=False)
    last_time: float = field(default_factory=perf_counter)
    prompt_scores: dict[int, Scored] = field(default_factory=dict[int, Scored])  # by place

    def __post_init__(self) -> None:
        self.token_ids = list(self.request.token_ids)
        self.prompt_ids = np.array(self.request.token_ids, np.int32)
        self.penalties = Penalties.of(self.request.sampling, self.request.token_ids)
        self.stats = Stats(prompt_tokens=len(self.token_ids))

    @property
    def prompt_len(self) -> int:
        return len(self.prompt_ids)

    @property
    def scored_from(self) -> int | None:
        """Place of the first token of the prompt whose score is still to be told."""
        return None if self.stats.generated_tokens else self.request.prompt_logprobs_from

    @property
    def reusable_ids(self) -> Int32:
        """The beginning of the prompt of which all but one may be remembered, not read: no row is wanted there."""
        return self.prompt_ids[: self.scored_from]

    @property
    def num_behind(self) -> int:
        """Known tokens that the cache has not seen."""
        return len(self.token_ids) - self.num_cached

    @property
    def num_alike(self) -> int:
        """Those of them that one run may hold: the rest of the prompt, or what was generated."""
        return self.prompt_len - self.num_cached if self.role is Role.PROMPT else self.num_behind

    @property
    def is_short(self) -> bool:
        """Whether it decodes: one token, or a few that had to follow it."""
        return self.num_behind == 1 or (self.role is Role.DECODE and self.num_behind <= MOST_FORCED_ROWS)

    @property
    def role(self) -> Role:
        """Numerics of the next tokens: prompt tokens are prompt rows however few are fed at once."""
        return Role.PROMPT if self.num_cached < self.prompt_len else Role.DECODE

    def told_scores(self) -> tuple[Scored, ...] | None:
        """Of the prompt's tokens, with the first event; None when none were asked for, or they were told."""
        if self.scored_from is None:
            return None
        return tuple(self.prompt_scores[place] for place in range(self.scored_from, self.prompt_len))

    def want_snapshots(self, places: Iterable[int]) -> None:
        """Snapshots after so many tokens, where the cache has not come yet."""
        ahead = {place for place in places if self.num_cached < place <= self.prompt_len}
        self.snapshots = sorted(ahead.union(self.snapshots))
