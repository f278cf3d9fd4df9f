"""One product alone is the product: both roles, any number of rows, bitwise the same row by row."""

import numpy as np
import pytest

from qwick.formats import BF16, F32, Q8_0
from qwick.ops.contract import Role
from qwick.ops.native import NativeBackend
from qwick.ops.product import Product


@pytest.mark.parametrize("format", [F32, BF16, Q8_0])
@pytest.mark.parametrize("role", Role)
def test_it_is_x_times_the_transposed_weight(format, role):
    rng = np.random.default_rng(0)
    w, x = (rng.standard_normal((n, 256)).astype(np.float32) for n in (70, 9))
    backend = NativeBackend(2)
    product = Product(backend, backend.add_matrix("w", w.shape, format, [(0, w)]), 9)
    y = product(x, role).copy()
    assert y.shape == (9, 70)
    scale = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(w, axis=1)
    assert (np.abs(y - x @ w.T) / scale).max() < (1e-6 if format == F32 else 5e-3)
    np.testing.assert_array_equal(product(x[3:4], role)[0], y[3])
