"""Every leaf is tested with every instruction set that this machine can run, or emulates."""

import numpy as np
import pytest

from qwick._kernels import leaves


@pytest.fixture(params=["scalar", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name not in leaves.isas():
        pytest.skip(f"this build and CPU cannot run {name}; `make sanitize` emulates avx512")
    return name


def make_weight(rng, family, n, k):
    """A random [n, k] weight of a family: (array, scales, exact f64 values)."""
    if family == "f32":
        w = rng.standard_normal((n, k)).astype(np.float32)
        return w, None, w.astype(np.float64)
    if family == "bf16":
        bits = (rng.standard_normal((n, k)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return bits, None, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    q = rng.integers(-128, 128, (n, k)).astype(np.int8)
    scales = (rng.random((n, k // 32)) * 0.02).astype(np.float16)
    return q, scales.view(np.uint16), q * np.repeat(scales.astype(np.float64), 32, axis=1)


@pytest.fixture
def weight():
    return make_weight
