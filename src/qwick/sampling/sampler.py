"""One draw from the logits of one row.

The order is vLLM's: temperature, min-p, top-k, top-p (a share of what the others left). With a top-k all of it happens
among the k largest logits, so a head that returns only those gives the same token as one that returns all.
"""

import math
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import numpy as np
from numpy.typing import NDArray

from qwick.errors import CheckpointError
from qwick.ops.contract import Result
from qwick.sampling.params import SamplingParams

Ids = NDArray[np.int64]
Weights = NDArray[np.float64]  # probabilities, up to a factor
Logits = NDArray[np.float32]
Allowed = NDArray[np.bool_]  # [vocab]: whether a token may come next

_MASK = 2**64 - 1
_FIRST_LOOK = 256  # tokens sorted at first when top-p alone sets the limit; sorting all 248,320 takes 40 ms


def sample(result: Result, row: int, params: SamplingParams, position: int) -> int:
    """The token that `params` draws from row `row` of `result` for place `position` of its sequence.

    `position` counts from the start of the sequence, prompt included: the random number depends on (seed, position)
    alone, so neither a restart nor the company in a batch changes an answer.
    Raises CheckpointError when the logits are not numbers, ValueError when `result` lacks candidates that count.
    """
    if params.num_candidates == 0:
        return _draw_of_all(result, row, params, position)
    ids, logits = _candidates(result, row, params.num_candidates)
    peak = logits[0]
    require_numbers(math.isfinite(peak) and not any(map(math.isnan, logits)))
    if params.is_greedy:
        return ids[0]
    # Few, and in order already. Plain floats: after a step that has swept the caches, numpy's machinery costs more
    # than the arithmetic (140 us a draw instead of 80).
    temperature, min_p = params.temperature, params.min_p
    weights = [math.exp((logit - peak) / temperature) for logit in logits]
    sums = list(accumulate(weight if weight >= min_p else 0.0 for weight in weights))
    if params.top_p < 1:
        sums = sums[: bisect_left(sums, params.top_p * sums[-1]) + 1]
    return ids[_draw(sums, params, position)]


def sample_allowed(logits: Logits, plain: Logits, allowed: Allowed, params: SamplingParams, position: int) -> int:
    """As `sample`, among the tokens that `allowed` [vocab] says: as if all others had a logit of minus infinity.

    Where a bias forbids all of them it counts for nothing: `plain` are the logits without it.
    """
    ids = np.flatnonzero(allowed)
    require_numbers(not math.isnan(float(np.max(plain))))
    chosen = logits[ids]
    if float(np.max(chosen)) == -math.inf:
        chosen = plain[ids]
    return int(ids[sample(Result(logits=chosen[None]), 0, params, position)])


def _draw_of_all(result: Result, row: int, params: SamplingParams, position: int) -> int:
    """Among all tokens that min-p and top-p leave."""
    logits = _all_logits(result, row)
    peak = float(np.max(logits))  # a NaN, if there is one
    require_numbers(math.isfinite(peak))
    ids = np.arange(len(logits))
    weights = np.exp((logits.astype(np.float64) - peak) / params.temperature)
    weights[weights < params.min_p] = 0
    if params.top_p < 1:
        ids, weights = _nucleus(ids, weights, params.top_p)
    return int(ids[_draw(cast("Sequence[float]", np.cumsum(weights)), params, position)])


def _draw(sums: Sequence[float], params: SamplingParams, position: int) -> int:
    """The index that a random number falls on; `sums` are running sums of weights."""
    total = sums[-1]
    drawn = bisect_right(sums, uniform(params.seed, position) * total)
    return min(drawn, bisect_left(sums, total))  # rounding must not lead past the last possible token


def require_numbers(true: bool) -> None:
    """Raises CheckpointError unless what was found of some logits is true."""
    if not true:
        raise CheckpointError(
            "the model computed logits that are not numbers: its weights are damaged or its config does not fit them"
        )


def uniform(seed: int | None, position: int) -> float:
    """A number in [0, 1): the first draw of Philox with this key and counter; a fresh one when there is no seed."""
    bits = secrets.randbits(64) if seed is None else _philox(seed, position + 1)  # numpy counts up before it draws
    return (bits >> 11) * 2**-53


def _philox(key: int, counter: int) -> int:
    """First 64 bits of Philox4x64-10 (Salmon et al., SC 2011). As numpy's, whose import takes longer than a token."""
    key_0, key_1 = key, 0
    a, b, c, d = counter, 0, 0, 0
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (right >> 64) ^ b ^ key_0, right & _MASK, (left >> 64) ^ d ^ key_1, left & _MASK
        key_0, key_1 = (key_0 + 0x9E3779B97F4A7C15) & _MASK, (key_1 + 0xBB67AE8584CAA73B) & _MASK
    return a


def _candidates(result: Result, row: int, count: int) -> tuple[list[int], list[float]]:
    """The `count` > 0 largest logits with their ids, largest first, ties the lower id first."""
    if result.logits is not None:
        logits = result.logits[row]
        ids = largest(logits, min(count, len(logits)))
        return ids.tolist(), logits[ids].tolist()
    if result.top_ids is None or result.top_logits is None:
        raise ValueError("the result has neither logits nor a top-k")
    if count > result.top_ids.shape[1]:
        raise ValueError(f"the draw needs {count} candidates, the head returned {result.top_ids.shape[1]}")
    return result.top_ids[row, :count].tolist(), result.top_logits[row, :count].tolist()


def _all_logits(result: Result, row: int) -> Logits:
    if result.logits is None:
        raise ValueError("the draw needs all candidates, the head returned a top-k")
    return result.logits[row]


def largest(values: NDArray[np.floating], count: int) -> Ids:
    """Indices of the `count` largest values, in order, ties the lower index first. A NaN counts as the largest."""
    border = np.partition(values, len(values) - count)[len(values) - count]
    if np.isnan(border):
        return np.flatnonzero(np.isnan(values))[:count]
    above = np.flatnonzero(~(values <= border))
    indices = np.concatenate([above, np.flatnonzero(values == border)[: count - len(above)]])
    return indices[np.lexsort((indices, -values[indices]))]


def _nucleus(ids: Ids, weights: Weights, top_p: float) -> tuple[Ids, Weights]:
    """The fewest of the heaviest that weigh `top_p` of the whole together, heaviest first."""
    wanted = top_p * float(np.cumsum(weights)[-1])
    look = min(_FIRST_LOOK, len(weights))
    while True:
        order = largest(weights, look)
        sums = np.cumsum(weights[order])
        if sums[-1] >= wanted or look == len(weights):
            break
        look = min(16 * look, len(weights))
    order = order[: int(np.searchsorted(sums, wanted, side="left")) + 1]
    return ids[order], weights[order]
