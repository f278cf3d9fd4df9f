"""How one answer is sampled, and when it ends."""

import math
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

from qwick.errors import UsageError

MAX_SEED = 2**64 - 1


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Checked when made: a value that makes no sense raises UsageError.

    temperature     0 takes the likeliest token, ties the lower id; the logits are divided by it
    top_k           keep the k likeliest tokens; 0 keeps all
    top_p           then keep the likeliest tokens whose probabilities first reach p together; 1 keeps all
    min_p           keep tokens at least min_p times as likely as the likeliest; 0 keeps all
    seed            the same seed gives the same answer (on one instruction set); None draws anew each time
    max_tokens      the answer ends after so many; None: when the context is full
    stop_token_ids  the answer ends with one of these
    """

    temperature: float = 1.0
    top_k: int = 20
    top_p: float = 0.95
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    stop_token_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        _require(math.isfinite(self.temperature) and self.temperature >= 0, "temperature", self.temperature, ">= 0")
        _require(self.top_k >= 0, "top_k", self.top_k, ">= 0 (0 keeps all tokens)")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _require(0 <= self.min_p <= 1, "min_p", self.min_p, "between 0 and 1")
        _require(self.seed is None or 0 <= self.seed <= MAX_SEED, "seed", self.seed, f"between 0 and {MAX_SEED}")
        _require(self.max_tokens is None or self.max_tokens > 0, "max_tokens", self.max_tokens, ">= 1")
        _require(all(i >= 0 for i in self.stop_token_ids), "stop_token_ids", set(self.stop_token_ids), "token ids")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def num_candidates(self) -> int:
        """How many of the largest logits decide the draw; 0: all of them."""
        return 1 if self.is_greedy else self.top_k

    def seeded(self) -> "SamplingParams":
        """The same with a seed, drawn from the system when there is none; so an interrupted answer can be repeated."""
        return self if self.seed is not None else replace(self, seed=secrets.randbits(64))

    def stopping_at(self, token_ids: Iterable[int]) -> "SamplingParams":
        """The same, ending at these ids too."""
        return replace(self, stop_token_ids=self.stop_token_ids.union(token_ids))


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value}; it must be {wanted}")
