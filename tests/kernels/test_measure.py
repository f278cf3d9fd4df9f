"""The read stream gives a rate, whatever the sizes, and refuses what makes no sense. No timing: only that it is one."""

import math

import pytest

from qwick.errors import CapacityError, KernelError
from qwick.ops.native import read_stream


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("num_bytes", [64 << 10, (1 << 20) + 1, 8 << 20])
def test_a_rate_comes_back_even_without_time(threads, num_bytes):
    rate = read_stream(num_bytes, threads, 0.0)
    assert math.isfinite(rate)
    assert rate > 1e6  # bytes a second: slower than any memory


@pytest.mark.parametrize(
    ("num_bytes", "threads", "seconds"),
    [(100, 1, 0.1), (1 << 20, 0, 0.1), (1 << 20, 5000, 0.1), (1 << 20, 1, -1.0), (1 << 20, 1, math.nan)],
)
def test_nonsense_is_refused(num_bytes, threads, seconds):
    with pytest.raises(KernelError):
        read_stream(num_bytes, threads, seconds)


def test_more_than_the_machine_has_is_a_capacity_error():
    with pytest.raises(CapacityError):
        read_stream(1 << 50, 1, 0.0)
