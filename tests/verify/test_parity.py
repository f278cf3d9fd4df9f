"""Parity is judged by a stated rule, and left out with a reason where it cannot be judged."""

import numpy as np
import pytest

from qwick.model.rope import RopeTable
from qwick.verify import parity
from qwick.verify.parity import compare, parity_checks
from qwick.verify.report import Outcome
from tests.verify.conftest import outcomes

LOGITS = (np.random.default_rng(0).standard_normal((20, 300)) * 3).astype(np.float32)


def test_equal_logits_agree():
    assert set(outcomes(compare(LOGITS, LOGITS)).values()) == {"ok"}
    noise = np.random.default_rng(1).standard_normal(LOGITS.shape).astype(np.float32)
    assert set(outcomes(compare(LOGITS + noise * 1e-4, LOGITS)).values()) == {"ok"}


def test_an_error_of_one_percent_is_too_much():
    noise = np.random.default_rng(1).standard_normal(LOGITS.shape).astype(np.float32)
    assert outcomes(compare(LOGITS + noise * 0.03, LOGITS))["logits"] == Outcome.FAILED


def test_another_likeliest_token_is_found_even_where_the_error_is_small():
    ours, theirs = (np.random.default_rng(2).standard_normal((20, 100_000)).astype(np.float32) for _ in range(2))
    ours[0, 5:7], theirs[0, 5:7] = (9.0, 9.1), (9.1, 9.0)
    assert outcomes(compare(ours, theirs)) == {"logits": Outcome.OK, "likeliest token": Outcome.FAILED}


@pytest.mark.parametrize("wrong", [LOGITS[:, :-1], LOGITS * np.nan])
def test_other_shapes_and_nan_fail(wrong):
    assert outcomes(compare(wrong, LOGITS))["logits"] == Outcome.FAILED


def test_transformers_agrees_with_a_folder(subject):
    pytest.importorskip("transformers")
    found = outcomes(parity_checks(subject.source, 2))
    assert found == {"logits": Outcome.OK, "likeliest token": Outcome.OK}


def test_positions_off_by_one_are_no_matter_but_a_stretched_rope_is(subject, monkeypatch):
    """Rotary angles are relative: the first is the control of the second."""
    pytest.importorskip("transformers")
    angles = RopeTable.angles
    monkeypatch.setattr(RopeTable, "angles", lambda self, positions: angles(self, positions + 1))
    assert outcomes(parity_checks(subject.source, 2))["logits"] == Outcome.OK
    monkeypatch.setattr(RopeTable, "angles", lambda self, positions: angles(self, positions * 2))
    assert outcomes(parity_checks(subject.source, 2))["logits"] == Outcome.FAILED


@pytest.mark.parametrize("reason", ["not installed", "of memory", "cannot run"])
def test_what_cannot_be_compared_is_skipped_with_the_reason(subject, monkeypatch, reason):
    if reason == "not installed":
        monkeypatch.setattr(parity, "find_spec", lambda name: None)
    elif reason == "of memory":
        monkeypatch.setattr(parity, "find_spec", lambda name: name)
        monkeypatch.setattr(parity, "BYTES_EACH", 1 << 40)
    else:
        monkeypatch.setattr(parity, "find_spec", lambda name: name)
        monkeypatch.setattr(parity, "_logits_of_transformers", lambda source, ids: 1 / 0)
    (check,) = parity_checks(subject.source, 2)
    assert check.outcome == Outcome.SKIPPED
    assert reason in check.detail
