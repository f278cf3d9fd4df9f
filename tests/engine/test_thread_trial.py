"""The trial of thread counts: on steps that are run anyway, in turns, decided by clear differences only."""

from types import SimpleNamespace

import numpy as np
import pytest

from qwick.engine import thread_trial
from qwick.engine.thread_trial import ThreadTrial, thread_candidates
from qwick.ops.contract import Batch, Role, Run

FULL = 8


def batch(rows, role=Role.DECODE, sequences=1):
    pages = np.zeros(1, np.int32)
    runs = tuple(Run(rows // sequences, role, 0, i, pages) for i in range(sequences))
    empty = np.zeros((rows, 0), np.float32)
    return Batch(np.zeros(rows, np.int32), empty, empty, runs, np.zeros(0, np.int32))


class Steps:
    """A model whose steps take what `seconds(threads, threads_batch)` says, on a clock of its own."""

    def __init__(self, monkeypatch, threads, threads_batch, seconds):
        self.now, self.using, self.settled, self.used = 0.0, None, [], []
        self._seconds = seconds
        monkeypatch.setattr(thread_trial, "perf_counter", lambda: self.now)
        self.trial = ThreadTrial(
            threads,
            threads_batch,
            full_rows=FULL,
            set_threads=lambda *counts: setattr(self, "using", counts),
            settled=lambda *counts: self.settled.append(counts),
        )

    def forward(self, _):
        self.used.append(self.using)
        self.now += self._seconds(*self.using)
        return SimpleNamespace()

    def run(self, step, times=1):
        for _ in range(times):
            self.using = self.using or (2, 2)
            self.trial.run(self.forward, step)


@pytest.mark.parametrize(
    ("usual", "most", "expected"),
    [(1, 1, (1,)), (1, 2, (1, 2)), (2, 2, (2, 1)), (4, 8, (4, 3, 2, 8)), (16, 32, (16, 12, 8, 32)), (3, 2, (3, 2))],
)
def test_candidates_are_around_the_usual_number(usual, most, expected):
    assert thread_candidates(usual, most) == expected


def test_the_clearly_faster_number_wins_and_all_take_turns(monkeypatch):
    steps = Steps(monkeypatch, (4, 2, 8), (4,), lambda threads, _: {2: 0.9, 4: 1.0, 8: 1.5}[threads])
    steps.run(batch(1), 100)
    assert steps.settled == [(2, 4)]
    assert steps.using == (2, 4)
    assert steps.trial.is_over
    tried = [threads for threads, _ in steps.used]
    assert sorted(tried[2:17]) == [2] * 5 + [4] * 5 + [8] * 5
    assert tried[2:8] == [4, 2, 8, 8, 2, 4]


@pytest.mark.parametrize("others", [0.98, 1.0, 2.0])
def test_the_usual_number_stays_without_a_clear_gain(monkeypatch, others):
    steps = Steps(monkeypatch, (2, 1), (2,), lambda threads, _: 1.0 if threads == 2 else others)
    steps.run(batch(1), 20)
    assert steps.settled == [(2, 2)]


def test_a_machine_that_hiccups_decides_nothing(monkeypatch):
    """The other number is faster in the median, but was slower in two rounds of five."""
    steps = Steps(monkeypatch, (2, 1), (2,), lambda threads, _: 1.0 if threads == 2 else wave.pop())
    wave = [0.5, 9.0, 0.5, 9.0, 0.5]
    steps.run(batch(1), 20)
    assert steps.settled == [(2, 2)]


def test_only_equal_work_is_compared(monkeypatch):
    steps = Steps(monkeypatch, (2, 1), (2, 1), lambda *_: 1.0)
    steps.run(batch(2, sequences=2), 50)
    steps.run(batch(FULL - 1, Role.PROMPT), 50)
    assert steps.settled == []
    assert not steps.trial.is_over
    assert set(steps.used) == {(2, 2)}


def test_prompts_are_tried_on_full_steps_and_told_apart(monkeypatch):
    steps = Steps(monkeypatch, (2, 1), (2, 1), lambda threads, batch: threads * 1.0 if batch == 2 else 0.25)
    steps.run(batch(FULL, Role.PROMPT), 20)
    assert steps.settled == [(None, 1)]
    assert steps.using == (2, 1)
    steps.run(batch(1), 20)
    assert steps.settled == [(None, 1), (2, 1)]
    assert steps.trial.is_over


def test_a_step_that_fails_leaves_the_usual_threads_and_the_turn(monkeypatch):
    steps = Steps(monkeypatch, (2, 1), (2,), lambda *_: 1.0)

    def fail(_):
        raise KeyboardInterrupt

    steps.run(batch(1), 3)  # the warm-up and one
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            steps.trial.run(fail, batch(1))
        assert steps.using == (2, 2)
    steps.run(batch(1), 9)
    assert steps.settled == [(2, 2)]


def test_one_number_is_no_trial():
    trial = ThreadTrial((2,), (2,), full_rows=FULL, set_threads=print, settled=print)
    assert trial.is_over
