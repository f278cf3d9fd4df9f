"""Log-probabilities of one row of logits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from qwick.errors import CheckpointError
from qwick.sampling.logprobs import edited, score

LOGITS = npst.arrays(np.float32, st.integers(1, 50), elements=st.floats(-60, 60, width=32))


@given(LOGITS, st.data())
def test_they_are_those_of_the_softmax(logits, data):
    token_id = data.draw(st.integers(0, len(logits) - 1))
    exact = logits.astype(np.float64)
    exact -= exact.max() + np.log(np.exp(exact - exact.max()).sum())
    logprob, top = score(logits, token_id, 7)
    assert logprob == pytest.approx(exact[token_id], abs=1e-6)
    assert [value for _, value in top] == pytest.approx(sorted(exact, reverse=True)[:7], abs=1e-6)
    assert len({i for i, _ in top}) == len(top) == min(7, len(logits))
    assert dict(top).get(token_id, logprob) == logprob


def test_of_equal_ones_the_lower_id_comes_first():
    assert [i for i, _ in score(np.zeros(9, np.float32), 0, 4)[1]] == [0, 1, 2, 3]


def test_what_is_forbidden_has_none():
    logits = np.array([0, -math.inf, 0], np.float32)
    assert score(logits, 1, 0) == (-math.inf, ())
    assert score(logits, 0, 0)[0] == pytest.approx(-math.log(2))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error(wrong):
    with pytest.raises(CheckpointError, match="not numbers"):
        score(np.array([0, wrong], np.float32), 0, 0)


def test_edits_are_those_of_the_contract():
    logits = np.array([1, -1, 2, 3], np.float32)
    values = np.array([[0, 2, -1], [0.5, 2, 0], [-math.inf, 1, 0]], np.float32)
    assert edited(logits, np.array([0, 1, 3], np.int32), values).tolist() == [-0.5, -1, 2, -math.inf]
    assert logits.tolist() == [1, -1, 2, 3]
