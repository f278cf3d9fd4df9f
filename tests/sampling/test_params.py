"""Senseless values are refused where they are written."""

import math
from typing import Any

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
