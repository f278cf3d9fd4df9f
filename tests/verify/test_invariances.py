"""Each bitwise check passes, and goes red for the dependence that it is there for."""

import numpy as np
import pytest

from qwick.ops.contract import Result
from qwick.verify.invariances import invariance_checks
from tests.verify.conftest import failures, outcomes

NAMES = ["again", "in chunks", "in company", "with one thread", "from a kept state", "drafted"]


def test_all_hold(subject):
    found = outcomes(invariance_checks(subject.model, subject.backend, 2))
    assert list(found) == ["finite logits", *NAMES]
    assert set(found.values()) == {"ok"}


@pytest.mark.parametrize(
    ("name", "depends"),
    [
        ("in company", lambda batch, threads: len(batch.runs) > 1),
        ("in chunks", lambda batch, threads: batch.runs[0].context_len == 65),
        ("with one thread", lambda batch, threads: threads == 1),
        ("from a kept state", lambda batch, threads: batch.runs[0].slot == 2),
        ("drafted", lambda batch, threads: not batch.runs[0].commit),
    ],
)
def test_one_ulp_that_depends_on_scheduling_is_found(subject, monkeypatch, name, depends):
    model, backend, forward = subject.model, subject.backend, subject.model.forward
    threads = [2]

    def set_threads(decode, batch):
        threads[0] = decode

    def wrong(batch):
        logits = forward(batch).logits.copy()
        if depends(batch, threads[0]):
            logits.view(np.uint32)[:, 7] ^= 1
        return Result(logits=logits)

    monkeypatch.setattr(backend, "set_threads", set_threads)
    monkeypatch.setattr(model, "forward", wrong)
    assert failures(invariance_checks(model, backend, 2)) == [name]


@pytest.mark.parametrize(("broken", "name"), [("copy_page", "from a kept state"), ("commit", "drafted")])
def test_state_that_is_not_kept_is_found(subject, monkeypatch, broken, name):
    owner = subject.backend if broken == "copy_page" else subject.model
    monkeypatch.setattr(owner, broken, lambda *_: None)
    assert failures(invariance_checks(subject.model, subject.backend, 2)) == [name]


def test_infinite_logits_are_found(subject, monkeypatch):
    forward, infinity = subject.model.forward, np.float32(np.inf)
    monkeypatch.setattr(subject.model, "forward", lambda batch: Result(logits=forward(batch).logits + infinity))
    assert "finite logits" in failures(invariance_checks(subject.model, subject.backend, 2))
