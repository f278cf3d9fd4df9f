"""Log-probabilities: what the model itself says of a token, before bias, penalties and temperature (vLLM: raw)."""

import math
from typing import TypeAlias

import numpy as np

from qwick.ops.contract import Float32, Int32
from qwick.sampling.sampler import largest, require_numbers

TopLogprobs: TypeAlias = tuple[tuple[int, float], ...]
"""(token id, log-probability) of the likeliest tokens, likeliest first, ties the lower id."""

Scored: TypeAlias = tuple[float, TopLogprobs]
"""The log-probability of one token, and what was likeliest in its place."""

MOST_TOP = 20  # as the OpenAI API


def score(logits: Float32, token_id: int, num_top: int) -> Scored:
    """`logits` [vocab], not edited. Raises CheckpointError when they are not numbers."""
    peak = float(np.max(logits))
    require_numbers(np.isfinite(peak))
    # exp in f32, an eighth of the time: each term is off by 1e-7 of itself, their sum in f64 by less.
    log_sum = peak + math.log(np.exp(logits - np.float32(peak)).sum(dtype=np.float64))
    top = largest(logits, min(num_top, len(logits))) if num_top else np.empty(0, np.int64)
    return float(logits[token_id]) - log_sum, tuple((int(i), float(logits[i]) - log_sum) for i in top)


def edited(logits: Float32, token_ids: Int32, values: Float32) -> Float32:
    """A copy of `logits` [vocab] with edits as ops.contract.LogitEdits says, as the head would have made them."""
    bias, repetition, offset = values.T
    copy = logits.copy()
    biased: Float32 = logits[token_ids] + bias
    copy[token_ids] = np.where(biased > 0, biased / repetition, biased * repetition) + offset
    return copy
