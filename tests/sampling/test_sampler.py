"""The draw: its limits, its distribution, and what it must not depend on."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qwick.errors import CheckpointError
from qwick.ops.contract import Result
from qwick.sampling.params import MAX_SEED, SamplingParams
from qwick.sampling.sampler import sample, uniform

VALUES = st.lists(st.integers(-8, 8).map(lambda n: n / 2), min_size=1, max_size=40)
LOGITS = VALUES.map(lambda values: np.array(values, np.float32))
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.01, 0.7, 1.0, 3.0]),
    top_k=st.integers(0, 50),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 2**64 - 1),
)


def full(*rows: NDArray[np.float32]) -> Result:
    return Result(logits=np.stack(rows))


def head_top(logits: NDArray[np.float32], k: int) -> Result:
    """What the head returns: largest first, ties the lower id."""
    order = np.lexsort((np.arange(len(logits)), -logits))[:k]
    peak = float(logits.max())
    total = peak + np.log(np.exp(logits.astype(np.float64) - peak).sum())
    return Result(
        top_ids=order.astype(np.int32)[None],
        top_logits=logits[order][None],
        logsumexp=np.array([total], np.float32),
    )


def allowed(logits: NDArray[np.float32], params: SamplingParams) -> set[int]:
    """Temperature, min-p, top-k, top-p, written down plainly."""
    if params.temperature == 0:
        return {int(np.argmax(logits))}
    weights = np.exp((logits.astype(np.float64) - logits.max()) / params.temperature)
    order = sorted(range(len(logits)), key=lambda i: (-weights[i], i))
    order = [i for i in order if weights[i] >= params.min_p][: params.top_k or None]
    kept: list[int] = []
    total = weights[order].sum()
    for i in order:
        kept.append(i)
        if weights[kept].sum() >= params.top_p * total - 1e-9:
            # Rounding may keep one more at the very border.
            return {*kept, *order[len(kept) : len(kept) + 1]} if params.top_p < 1 else set(order)
    return set(order)


@given(LOGITS, PARAMS, st.integers(0, 10**9))
def test_a_draw_obeys_every_limit(logits: NDArray[np.float32], params: SamplingParams, position: int) -> None:
    assert sample(full(logits), 0, params, position) in allowed(logits, params)


@example(np.array([0.0] * 10 + [0.5], np.float32), SamplingParams(temperature=0.7, top_k=11, top_p=1.0, seed=0), 0, 0)
@given(LOGITS, PARAMS, st.integers(0, 99), st.integers(0, 60))
def test_all_logits_and_any_long_enough_top_k_give_the_same_token(
    logits: NDArray[np.float32], params: SamplingParams, position: int, more: int
) -> None:
    k = min(params.num_candidates + more, len(logits))
    if not 0 < params.num_candidates <= k:
        return
    assert sample(head_top(logits, k), 0, params, position) == sample(full(logits), 0, params, position)


@given(LOGITS, PARAMS, st.integers(0, 99))
def test_neighbours_in_the_batch_change_nothing(
    logits: NDArray[np.float32], params: SamplingParams, position: int
) -> None:
    together = full(logits[::-1], logits, logits + 1)
    assert sample(together, 1, params, position) == sample(full(logits), 0, params, position)


def test_greedy_takes_the_lower_id_of_equals() -> None:
    greedy = SamplingParams(temperature=0)
    assert sample(full(np.array([0, 2, 2, 1], np.float32)), 0, greedy, 0) == 1


def test_the_number_depends_on_seed_and_position_alone() -> None:
    assert uniform(7, 5) == uniform(7, 5)
    numbers = {uniform(seed, position) for seed in (0, 1, 2**64 - 1) for position in range(100)}
    assert len(numbers) == 300
    assert uniform(None, 5) != uniform(None, 5)


@given(st.integers(0, MAX_SEED), st.integers(0, 2**40))
def test_the_number_is_numpys_philox(seed: int, position: int) -> None:
    assert uniform(seed, position) == np.random.Generator(np.random.Philox(key=seed, counter=position)).random()


def test_the_draws_follow_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))
    result = full(logits)
    num_draws = 4000
    for top_k in (0, 4):
        params = SamplingParams(temperature=1, top_k=top_k, top_p=1, seed=1)
        counts = Counter(sample(result, 0, params, position) for position in range(num_draws))
        for token, share in enumerate([0.5, 0.25, 0.125, 0.125]):
            # Five standard deviations of a binomial count.
            assert abs(counts[token] - share * num_draws) < 5 * (share * (1 - share) * num_draws) ** 0.5


def test_temperature_sharpens() -> None:
    result = full(np.array([1, 0], np.float32))
    share = {
        t: Counter(sample(result, 0, SamplingParams(temperature=t, seed=3, top_p=1), i) for i in range(2000))[0] / 2000
        for t in (0.25, 4.0)
    }
    assert share[0.25] == pytest.approx(1 / (1 + np.exp(-4)), abs=0.03)
    assert share[4.0] == pytest.approx(1 / (1 + np.exp(-0.25)), abs=0.05)


def test_top_p_alone_over_a_big_flat_vocabulary_looks_far_enough() -> None:
    logits = np.zeros(5000, np.float32)
    params = SamplingParams(top_k=0, top_p=0.5, seed=0)
    drawn = [sample(full(logits), 0, params, position) for position in range(300)]
    assert max(drawn) < 2500
    assert max(drawn) > 2300


def test_tokens_with_a_logit_of_minus_infinity_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0, -np.inf], np.float32)
    for top_k in (0, 2, 3):
        assert {sample(full(logits), 0, SamplingParams(top_k=top_k, top_p=1, seed=1), i) for i in range(50)} == {1}


@pytest.mark.parametrize("logits", [[0, np.nan], [np.inf, 0], [-np.inf, -np.inf]])
@pytest.mark.parametrize("params", [SamplingParams(temperature=0), SamplingParams(top_k=1), SamplingParams(top_k=0)])
def test_logits_that_are_no_numbers_are_an_error(logits: list[float], params: SamplingParams) -> None:
    with pytest.raises(CheckpointError, match="not numbers"):
        sample(full(np.array(logits, np.float32)), 0, params, 0)


def test_too_few_candidates_are_an_error_of_the_engine() -> None:
    logits = np.arange(10, dtype=np.float32)
    for params in (SamplingParams(top_k=5), SamplingParams(top_k=0)):
        with pytest.raises(ValueError, match="candidates"):
            sample(head_top(logits, 4), 0, params, 0)
