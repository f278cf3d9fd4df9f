"""Blocks of the online softmax: right against f64, and a row's bits do not depend on its neighbours."""

import numpy as np
import pytest

from qwick._kernels import leaves

UNIT = 2.0**-24  # unit roundoff of f32


def stored(x, kv_format):
    """What the cache holds, and its value."""
    if kv_format == "f32":
        return x, x.astype(np.float64)
    half = x.astype(np.float16)
    return half.view(np.uint16), half.astype(np.float64)


def start(rows, head_dim):
    return np.full(rows, -np.inf, np.float32), np.zeros(rows, np.float32), np.zeros((rows, head_dim), np.float32)


@pytest.mark.parametrize("kv_format", ["f32", "f16"])
@pytest.mark.parametrize("head_dim", [16, 80, 256])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
def test_blocks_give_softmax_times_values(isa, kv_format, head_dim, rows):
    rng = np.random.default_rng(head_dim + rows)
    query = (rng.standard_normal((rows, head_dim)) * 3 / np.sqrt(head_dim)).astype(np.float32)
    keys, values = (rng.standard_normal((192, head_dim)).astype(np.float32) for _ in range(2))
    (keys, k64), (values, v64) = stored(keys, kv_format), stored(values, kv_format)
    lengths = rng.integers(129, 193, rows)  # in the last block each row sees another number of keys
    state = start(rows, head_dim)
    for begin in (0, 64, 128):
        visible = np.clip(lengths - begin, 0, 64).astype(np.int32)
        state = leaves.attend_block(isa, query, keys[begin : begin + 64], values[begin : begin + 64], visible, *state)
    largest, total, acc = state
    for r, length in enumerate(lengths):
        scores = k64[:length] @ query[r].astype(np.float64)
        weights = np.exp(scores - scores.max())
        # A score is off by a dot over head_dim; the weights by as much, relatively; the sums run over 192 keys.
        score_error = (head_dim + 2) * UNIT * (np.abs(k64[:length]) @ np.abs(query[r])).max()
        relative = 2 * (score_error + (8 + np.abs(scores).max()) * UNIT) + (192 + 8) * UNIT
        assert abs(largest[r] - scores.max()) <= score_error
        exact = weights @ v64[:length] / weights.sum()
        assert np.all(
            np.abs(acc[r] / total[r] - exact) <= relative * (weights @ np.abs(v64[:length])) / weights.sum() * 2
        )


@pytest.mark.parametrize("kv_format", ["f32", "f16"])
def test_a_row_has_the_same_bits_alone_and_among_others(isa, kv_format):
    rng = np.random.default_rng(1)
    rows, head_dim = 9, 96
    query = rng.standard_normal((rows, head_dim)).astype(np.float32)
    keys, values = (stored(rng.standard_normal((64, head_dim)).astype(np.float32), kv_format)[0] for _ in range(2))
    visible = np.array([64, 3, 64, 0, 1, 17, 64, 63, 33], np.int32)
    carried = [a.astype(np.float32) for a in (rng.random(rows), rng.random(rows) + 1, rng.random((rows, head_dim)))]
    together = leaves.attend_block(isa, query, keys, values, visible, *carried)
    for r in range(rows):
        one = slice(r, r + 1)
        alone = leaves.attend_block(isa, query[one], keys, values, visible[one], *(a[one] for a in carried))
        for mine, shared in zip(alone, together, strict=True):
            np.testing.assert_array_equal(mine, shared[one])


@pytest.mark.parametrize("kv_format", ["f32", "f16"])
def test_keys_out_of_sight_may_hold_anything(isa, kv_format):
    rng = np.random.default_rng(2)
    query = rng.standard_normal((4, 32)).astype(np.float32)
    keys, values = (rng.standard_normal((64, 32)).astype(np.float32) for _ in range(2))
    visible = np.array([5, 9, 9, 6], np.int32)
    clean = leaves.attend_block(
        isa, query, stored(keys, kv_format)[0], stored(values, kv_format)[0], visible, *start(4, 32)
    )
    keys[9:], values[9:] = np.nan, np.inf
    keys[6], values[8] = np.nan, np.nan  # seen by rows 1 and 2 only
    keys, values = stored(keys, kv_format)[0], stored(values, kv_format)[0]
    dirty = leaves.attend_block(isa, query, keys, values, visible, *start(4, 32))
    for before, after in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(after[[0, 3]], before[[0, 3]])
    # Nor need their memory exist.
    shorter = leaves.attend_block(isa, query[:1], keys[:5], values[:5], visible[:1], *start(1, 32))
    np.testing.assert_array_equal(shorter[2], clean[2][:1])


def test_a_row_that_sees_nothing_is_left_alone(isa):
    keys = np.full((64, 16), np.nan, np.float32)
    before = start(1, 16)
    after = leaves.attend_block(isa, np.ones((1, 16), np.float32), keys, keys, np.zeros(1, np.int32), *before)
    for mine, was in zip(after, before, strict=True):
        np.testing.assert_array_equal(mine, was)


def test_scores_of_very_different_size_do_not_overflow(isa):
    keys = np.zeros((64, 16), np.float32)
    keys[:3, 0] = [-1e4, 1e4, 9e3]
    values = np.arange(64, dtype=np.float32)[:, None] * np.ones(16, np.float32)
    query = np.ones((1, 16), np.float32)
    largest, total, acc = leaves.attend_block(isa, query, keys, values, np.array([64], np.int32), *start(1, 16))
    assert largest[0] == 1e4
    assert total[0] == 1
    np.testing.assert_array_equal(acc[0], np.ones(16))
