"""What is measured are rates of this machine; how large they are is not tested."""

import pytest

from qwick.bench import limits
from qwick.formats import BF16, F32, Family


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    sizes = {"STREAM_BYTES": 1 << 20, "WEIGHT_BYTES": 1 << 18, "PANEL": (16, 256), "NARROW": (32, 256)}
    for name, value in (sizes | {"WIDE": (48, 512), "SLICE_SECONDS": 0.0}).items():
        monkeypatch.setattr(limits, name, value)


def test_every_asked_family_has_its_rates():
    found = limits.measure_limits([BF16, F32], threads=2, threads_batch=1)
    assert (found.threads, found.threads_batch) == (2, 1)
    assert set(found.families) == {Family.BF16, Family.F32}
    for rates in found.families.values():
        assert min(rates.decode_bytes, rates.narrow_bytes, rates.prompt_madds, rates.load_bytes) > 0
    assert found.read_bytes > 0
    assert found.available_bytes > 0
    assert found.matrix_madds == max(rates.prompt_madds for rates in found.families.values())


def test_the_best_of_several_runs_is_taken(monkeypatch):
    clock = iter([0.0, 10.0, 13.0, 20.0, 21.0, 30.0, 32.0, 99.0])
    monkeypatch.setattr(limits, "perf_counter", lambda: next(clock))
    runs = []
    assert limits.best_seconds(lambda: runs.append(1), seconds=5.0) == 1.0
    assert len(runs) == 3
