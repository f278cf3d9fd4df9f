"""What was asked (Request), how far it has come (Sequence), what a step tells (Event)."""

from dataclasses import dataclass, field
from enum import StrEnum

from qwick.ops.contract import Role
from qwick.sampling.params import SamplingParams


class Finish(StrEnum):
    """Why a sequence ended; the values are those of the OpenAI API."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how to continue it."""

    token_ids: tuple[int, ...]
    sampling: SamplingParams


@dataclass(slots=True)
class Stats:
    """Counts of tokens and seconds of wall clock. The first token comes with the prompt's last step."""

    prompt_tokens: int
    generated_tokens: int = 0
    prompt_seconds: float = 0.0
    decode_seconds: float = 0.0

    def copy(self) -> "Stats":
        """As it is now: the sequence's own goes on counting."""
        return Stats(self.prompt_tokens, self.generated_tokens, self.prompt_seconds, self.decode_seconds)


@dataclass(frozen=True, slots=True)
class Event:
    """One new token of one sequence, why it was the last (if it was), and the sequence's counts so far."""

    sequence_id: int
    token_id: int
    stats: Stats
    finish: Finish | None = None


@dataclass(slots=True)
class Sequence:
    """A request under way: tokens known so far, and how many of them the cache has seen."""

    sequence_id: int
    request: Request
    token_ids: list[int]
    slot: int
    pages: list[int]
    num_cached: int = 0
    stats: Stats = field(init=False)

    def __post_init__(self) -> None:
        self.stats = Stats(prompt_tokens=len(self.request.token_ids))

    @property
    def num_behind(self) -> int:
        """Known tokens that the cache has not seen."""
        return len(self.token_ids) - self.num_cached

    @property
    def role(self) -> Role:
        """Numerics of the next tokens: prompt tokens are prompt rows however few are fed at once."""
        return Role.PROMPT if self.num_cached < len(self.request.token_ids) else Role.DECODE
