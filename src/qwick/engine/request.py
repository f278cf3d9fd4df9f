"""What was asked (Request), how far it has come (Sequence), what a step tells (Event)."""

from dataclasses import dataclass, field
from enum import StrEnum

from qwick.cache.kept import Held
from qwick.ops.contract import Role
from qwick.sampling.params import SamplingParams
from qwick.sampling.penalties import Penalties


class Finish(StrEnum):
    """Why a sequence ended; the values are those of the OpenAI API."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how to continue it.

    keep         what was computed stays (EngineConfig.kept_sequences) for a request that begins with the same ids
    snapshot_at  that request may also go on after so many ids of this prompt; None: only after all that was computed

    Going on from a snapshot gives the same logits, bit for bit, as reading the prompt anew. What was generated has been
    computed as decode rows and stays so in a sequence that goes on after it, as if the answer had simply grown longer.
    """

    token_ids: tuple[int, ...]
    sampling: SamplingParams
    keep: bool = False
    snapshot_at: int | None = None


@dataclass(slots=True)
class Stats:
    """Counts of tokens and seconds of wall clock. The first token comes with the prompt's last step.

    cached_tokens  of the prompt's tokens, those that were not read because a kept sequence had seen them
    """

    prompt_tokens: int
    generated_tokens: int = 0
    prompt_seconds: float = 0.0
    decode_seconds: float = 0.0
    cached_tokens: int = 0

    def copy(self) -> "Stats":
        """As it is now: the sequence's own goes on counting."""
        return Stats(
            self.prompt_tokens, self.generated_tokens, self.prompt_seconds, self.decode_seconds, self.cached_tokens
        )


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
    held: Held
    num_cached: int = 0
    stats: Stats = field(init=False)
    penalties: Penalties | None = field(init=False)  # of the logits; brought up to date when a batch wants them

    def __post_init__(self) -> None:
        self.penalties = Penalties.of(self.request.sampling, self.request.token_ids)
        self.stats = Stats(prompt_tokens=len(self.request.token_ids), cached_tokens=self.num_cached)

    @property
    def num_behind(self) -> int:
        """Known tokens that the cache has not seen."""
        return len(self.token_ids) - self.num_cached

    @property
    def role(self) -> Role:
        """Numerics of the next tokens: prompt tokens are prompt rows however few are fed at once."""
        return Role.PROMPT if self.num_cached < len(self.request.token_ids) else Role.DECODE

    def snapshots_within(self, num_tokens: int) -> tuple[tuple[int, int], ...]:
        """(n, slot): after n of the next `num_tokens` tokens the state is wanted in that slot; () when it is not."""
        if self.request.snapshot_at is None or self.held.snapshot_slot is None:
            return ()
        ahead = self.request.snapshot_at - self.num_cached
        return ((ahead, self.held.snapshot_slot),) if 1 <= ahead <= num_tokens else ()
