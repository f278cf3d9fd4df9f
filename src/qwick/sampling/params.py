"""How one answer is sampled, and when it ends."""

import math
import secrets
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from qwick.errors import UsageError

MAX_SEED = 2**64 - 1
MAX_BIAS = 100.0  # as the OpenAI API; more is no different from certainty
MAX_REPETITION = 1e6  # and 1 / it: beyond that, logits may leave f32
_LEAST, _LARGEST = sys.float_info.min, sys.float_info.max


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Checked when made: a value that makes no sense raises UsageError.

    The logits are edited in this order (vLLM's): logit_bias, repetition, frequency and presence penalty; then come
    temperature, min-p, top-k, top-p. Penalties count as vLLM does: presence and frequency over the generated tokens,
    repetition over prompt and generated tokens. Other runtimes count differently under the same names.

    temperature         0 takes the likeliest token, ties the lower id; the logits are divided by it
    top_k               keep the k likeliest tokens; 0 keeps all
    top_p               then keep the likeliest tokens whose probabilities first reach p together; 1 keeps all
    min_p               keep tokens at least min_p times as likely as the likeliest; 0 keeps all
    presence_penalty    taken from the logit of each token generated so far; -2 to 2
    frequency_penalty   the same once for each time it was generated; -2 to 2
    repetition_penalty  divides the positive, multiplies the other logits of tokens seen; 1 does nothing
    logit_bias          token id -> what to add to its logit, -100 to 100; minus infinity forbids it
    seed                the same seed gives the same answer (on one instruction set); None draws anew each time
    max_tokens          the answer ends after so many; None: when the context is full
    stop_token_ids      the answer ends with one of these
    """

    temperature: float = 1.0
    top_k: int = 20
    top_p: float = 0.95
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float], hash=False)
    seed: int | None = None
    max_tokens: int | None = None
    stop_token_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        _require(_is_number(self.temperature, 0, _LARGEST), "temperature", self.temperature, ">= 0")
        _require(_is_whole(self.top_k, 0, _LARGEST), "top_k", self.top_k, ">= 0 (0 keeps all tokens)")
        _require(_is_number(self.top_p, _LEAST, 1), "top_p", self.top_p, "above 0 and at most 1")
        _require(_is_number(self.min_p, 0, 1), "min_p", self.min_p, "between 0 and 1")
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            _require(_is_number(value, -2, 2), name, value, "between -2 and 2")
        holds = _is_number(self.repetition_penalty, 1 / MAX_REPETITION, MAX_REPETITION)
        _require(holds, "repetition_penalty", self.repetition_penalty, f"above 0, at most {MAX_REPETITION:g} or 1 / it")
        _require(self.seed is None or _is_whole(self.seed, 0, MAX_SEED), "seed", self.seed, f"from 0 to {MAX_SEED}")
        holds = self.max_tokens is None or _is_whole(self.max_tokens, 1, _LARGEST)
        _require(holds, "max_tokens", self.max_tokens, ">= 1")
        self._check_stops(self.stop_token_ids)
        self._check_bias(self.logit_bias)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether tokens seen change the logits."""
        return (self.presence_penalty, self.frequency_penalty, self.repetition_penalty) != (0, 0, 1)

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

    def check_ids(self, vocab_size: int) -> None:
        """Raises UsageError when a token id is not of this vocabulary, or all of it is forbidden."""
        for name, ids in (("logit_bias", self.logit_bias), ("stop_token_ids", self.stop_token_ids)):
            largest = max(ids, default=0)
            _require(largest < vocab_size, f"an id of {name}", largest, f"from 0 to {vocab_size - 1}")
        if sum(bias == -math.inf for bias in self.logit_bias.values()) == vocab_size:
            raise UsageError("logit_bias forbids every token; leave at least one")

    def _check_stops(self, given: object) -> None:
        holds = isinstance(given, Iterable) and not isinstance(given, str | bytes)
        ids = tuple(cast("Iterable[object]", given)) if holds else ()
        _require(holds and all(map(_is_token_id, ids)), "stop_token_ids", cast("object", given), "token ids")
        object.__setattr__(self, "stop_token_ids", frozenset(ids))

    def _check_bias(self, given: object) -> None:
        _require(isinstance(given, Mapping), "logit_bias", given, "{token id: number}")
        bias = dict(cast("Mapping[object, object]", given))  # a copy: the caller's own may change
        for token_id, value in bias.items():
            _require(_is_token_id(token_id), "a key of logit_bias", token_id, "a token id")
            holds = _is_number(value, -math.inf, MAX_BIAS) and not -math.inf < cast("float", value) < -MAX_BIAS
            _require(holds, f"the logit_bias of {token_id}", value, "between -100 and 100, or minus infinity")
        object.__setattr__(self, "logit_bias", bias)


def _is_number(value: Any, least: float, most: float) -> bool:
    plain: object = cast("Any", value).item() if isinstance(value, np.number) else value
    return isinstance(plain, int | float) and not isinstance(plain, bool) and least <= plain <= most


def _is_whole(value: Any, least: int, most: float) -> bool:
    return isinstance(value, int | np.integer) and _is_number(value, least, most)


def _is_token_id(value: Any) -> bool:
    return _is_whole(value, 0, (1 << 31) - 1)


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value!r:.100}; it must be {wanted}")
