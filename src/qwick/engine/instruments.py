"""What an engine counts and times, in one place that a server can export."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from qwick.cache.prefix import MissReason
from qwick.engine.request import Stats

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)


@dataclass(slots=True)
class Histogram:
    """Counts by upper bound, as Prometheus has them; `counts` has one more, for what is above all bounds."""

    bounds: tuple[float, ...] = _SECONDS
    counts: list[int] = field(default_factory=list[int])
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(slots=True)
class Instruments:
    """Since the engine was made. Tokens are counted when a step has read or made them; seconds are wall clock.

    read_tokens       prompt tokens that were read; cached_tokens those that were remembered
    idle_tokens       read at leisure (Engine.remember)
    reread_tokens     read again after a pre-emption
    misses            prompts by the reason why no more of them was remembered
    queue_seconds, first_token_seconds    from asking to the first step, to the first token
    token_seconds     between two tokens of one answer
    """

    steps: int = 0
    requests: int = 0
    cancelled: int = 0
    read_tokens: int = 0
    cached_tokens: int = 0
    reread_tokens: int = 0
    idle_tokens: int = 0
    generated_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter[str])
    misses: Counter[MissReason] = field(default_factory=Counter[MissReason])
    step_seconds: Histogram = field(default_factory=Histogram)
    queue_seconds: Histogram = field(default_factory=Histogram)
    first_token_seconds: Histogram = field(default_factory=Histogram)
    token_seconds: Histogram = field(default_factory=Histogram)

    def note_start(self, stats: Stats) -> None:
        """A request has its memory."""
        self.queue_seconds.observe(stats.queue_seconds)
        self.cached_tokens += stats.cached_tokens
        if stats.miss is not None:
            self.misses[stats.miss.reason] += 1

    def note_token(self, stats: Stats, seconds: float) -> None:
        """A token came, so long after the one before or the asking."""
        self.generated_tokens += 1
        is_first = stats.generated_tokens == 1
        (self.first_token_seconds if is_first else self.token_seconds).observe(seconds)


@dataclass(frozen=True, slots=True)
class Levels:
    """How things stand now: sequences, and pages of the cache. `snapshots_taken`, …: since the engine was made."""

    waiting: int
    running: int
    idle_jobs: int
    pages: int
    pages_free: int
    pages_in_use: int
    page_bytes: int
    snapshots: int
    snapshots_taken: int
    snapshots_forgotten: int
    preemptions: int
