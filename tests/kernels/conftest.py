"""Every leaf is tested with every instruction set that has its own and that this machine can run, or emulates."""

import numpy as np
import pytest

from qwick._kernels import leaves
from qwick.formats import BF16, F16, FORMATS
from qwick.ops.native import NativeBackend, decode
from tests.kernels.random_blocks import random_blocks


def runnable(isa: str) -> str:
    if isa not in leaves.isas():
        pytest.skip(f"this build and CPU cannot run {isa}; `make emulate` and `make sanitize` can")
    return isa


@pytest.fixture(params=["scalar", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> str:
    """Those that have every leaf."""
    return runnable(request.param)


def make_weight(rng, name, n, k):
    """A random [n, k] weight of a format: (the tensor in memory, its exact values in f64)."""
    format = FORMATS[name]
    if format.is_blocks:
        rows = random_blocks(rng, format, n, k, tame=True)
    else:
        rows = rng.standard_normal((n, k)).astype(np.float32)
        if format is F16:
            rows = rows.astype(np.float16)
        elif format is BF16:
            rows = (rows.view(np.uint32) >> 16).astype(np.uint16)
    tensor = NativeBackend(1).add_matrix("w", (n, k), format, [(0, rows)], format)
    return tensor, decode(rows, format, 1).astype(np.float64)


@pytest.fixture
def weight():
    return make_weight
