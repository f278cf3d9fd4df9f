"""Senseless values are refused where they are written."""

import math
import pickle
from typing import Any

import numpy as np
import pytest

from qwick.errors import UsageError
from qwick.sampling.params import MAX_SEED, SamplingParams


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
        ("max_tokens", 0),
        ("stop_token_ids", frozenset({-1})),
        ("stop_token_ids", "12"),
        ("stop_token_ids", 12),
        ("stop_token_ids", [[1]]),
        ("stop_token_ids", [2**31]),
        ("temperature", "1"),
        ("temperature", True),
        ("temperature", None),
        ("top_k", 2.0),
        ("seed", 1.5),
        ("presence_penalty", 2.01),
        ("presence_penalty", math.nan),
        ("frequency_penalty", -2.01),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1),
        ("repetition_penalty", 1e-9),
        ("repetition_penalty", math.inf),
        ("logit_bias", [1]),
        ("logit_bias", {-1: 0.0}),
        ("logit_bias", {"1": 0.0}),
        ("logit_bias", {True: 0.0}),
        ("logit_bias", {1: 100.5}),
        ("logit_bias", {1: -100.5}),
        ("logit_bias", {1: math.inf}),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", {1: "x"}),
        ("logit_bias", {1: np.ones(2)}),
    ],
)
def test_a_senseless_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        SamplingParams(**{name: value})


def test_candidates_needed() -> None:
    assert SamplingParams(temperature=0, top_k=0).num_candidates == 1
    assert SamplingParams(top_k=20).num_candidates == 20
    assert SamplingParams(top_k=0).num_candidates == 0


def test_a_seed_is_drawn_once_and_kept() -> None:
    first, second = SamplingParams().seeded(), SamplingParams().seeded()
    assert first.seed != second.seed
    assert first.seeded() == first


def test_stop_ids_add_up() -> None:
    assert SamplingParams(stop_token_ids=frozenset({1})).stopping_at([2]).stop_token_ids == {1, 2}


def test_numbers_of_numpy_are_numbers() -> None:
    params = SamplingParams(temperature=np.float32(0.5), top_k=np.int64(3), logit_bias={np.int32(4): np.float64(-1)})  # type: ignore[arg-type]
    assert (params.temperature, params.top_k, params.logit_bias) == (0.5, 3, {4: -1})


def test_a_bias_may_forbid_and_is_a_copy() -> None:
    bias = {1: -math.inf, 2: -100, 3: 100}
    params = SamplingParams(logit_bias=bias, stop_token_ids=[3, 4])  # type: ignore[arg-type]
    bias[1] = 0
    assert params.logit_bias[1] == -math.inf
    assert params.stop_token_ids == {3, 4}
    assert hash(params) == hash(params.stopping_at([4]))
    assert pickle.loads(pickle.dumps(params)) == params


def test_ids_must_be_of_the_vocabulary() -> None:
    SamplingParams(logit_bias={9: 1}, stop_token_ids=frozenset({9})).check_ids(10)
    for name, params in {
        "logit_bias": SamplingParams(logit_bias={10: 1}),
        "stop_token_ids": SamplingParams(stop_token_ids=frozenset({10})),
    }.items():
        with pytest.raises(UsageError, match=f"{name} is 10.* 0 to 9"):
            params.check_ids(10)


def test_something_must_be_allowed() -> None:
    SamplingParams(logit_bias=dict.fromkeys(range(9), -math.inf)).check_ids(10)
    with pytest.raises(UsageError, match="every token"):
        SamplingParams(logit_bias=dict.fromkeys(range(10), -math.inf)).check_ids(10)
