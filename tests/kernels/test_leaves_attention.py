"""Blocks of the online softmax: right against f64, and a row's bits do not depend on its neighbours."""

import numpy as np
import pytest

from qwick._kernels import leaves
from qwick.errors import KernelError
from tests.kernels.conftest import runnable
from tests.kernels.kv_blocks import KV_FORMATS, decoded, read_block

UNIT = 2.0**-24  # unit roundoff of f32
# A product of bf16 parts, relative to its factors: the rests' own product, and what is left of 16 bits.
PARTS = {"f32": 0.0, "f16": 2.0**-13, "bf16": 2.0**-14, "q8_0": 2.0**-13}


@pytest.fixture(params=["scalar", "avx2", "avx512", "amx"])
def isa(request):
    """With AMX, the leaves of prompt rows; without, they are those of all rows."""
    return runnable(request.param)


def attend(isa, kv_format, query, *args, **kwargs):
    if isa == "amx" and (query.shape[1] % 32 or query.shape[1] > 256):
        pytest.skip("prompts in tiles have whole groups of at most 256")
    return leaves.attend_block(isa, kv_format, query, *args, prompt=isa == "amx", **kwargs)


def blocks(isa, kv_format, keys, values):
    """What the cache holds of up to 64 keys and values."""
    return leaves.store_kv(isa, kv_format, keys, False), leaves.store_kv(isa, kv_format, values, True)


def start(rows, head_dim):
    return np.full(rows, -np.inf, np.float32), np.zeros(rows, np.float32), np.zeros((rows, head_dim), np.float32)


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize("head_dim", [16, 96, 256])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 23, 200])
def test_blocks_give_softmax_times_values(isa, kv_format, head_dim, rows):
    if kv_format == "q8_0" and head_dim % 32:
        pytest.skip("q8_0 has groups of 32")
    rng = np.random.default_rng(head_dim + rows)
    query = (rng.standard_normal((rows, head_dim)) * 3 / np.sqrt(head_dim)).astype(np.float32)
    keys, values = (rng.standard_normal((192, head_dim)).astype(np.float32) for _ in range(2))
    k64, v64 = decoded(keys, kv_format), decoded(values, kv_format)
    lengths = rng.integers(129, 193, rows)  # in the last block each row sees another number of keys
    state = start(rows, head_dim)
    for begin in (0, 64, 128):
        visible = np.clip(lengths - begin, 0, 64).astype(np.int32)
        some = slice(begin, begin + 64)
        state = attend(isa, kv_format, query, *blocks(isa, kv_format, keys[some], values[some]), visible, *state)
    largest, total, acc = state
    word = 0.5 / 32767 if kv_format == "q8_0" else 0.0  # rounding of queries and weights to int16, of the largest
    part = PARTS[kv_format] if isa == "amx" else 0.0
    for r, length in enumerate(lengths):
        k, v, q = k64[:length], v64[:length], query[r].astype(np.float64)
        scores = k @ q
        weights = np.exp(scores - scores.max())
        # A score is off by a dot over head_dim; the weights by as much, relatively; the sums run over 192 keys.
        score_error = ((head_dim + 2) * UNIT + part) * (np.abs(k) @ np.abs(q)).max()
        score_error += word * np.abs(q).max() * np.abs(k).sum(axis=1).max()
        relative = 2 * (score_error + (8 + np.abs(scores).max()) * UNIT) + (192 + 8) * UNIT + part
        assert abs(largest[r] - scores.max()) <= score_error
        exact = weights @ v / weights.sum()
        # The largest product of weight and scale in a block bounds what each of its weights is off by.
        error = 2 * relative * (weights @ np.abs(v)) + 1.01 * word * length * np.abs(v).max() * weights.max()
        assert np.all(np.abs(acc[r] / total[r] - exact) <= error / weights.sum())


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize("values", [False, True])
def test_a_block_holds_the_nearest_values_whatever_the_instruction_set(isa, kv_format, values):
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((49, 96)) * np.exp(rng.standard_normal((49, 96)) * 3)).astype(np.float32)
    x[3], x[4, :32], x[5] = 0, 1e-9, x[5] * 1e-6
    block = leaves.store_kv(isa, kv_format, x, values)
    np.testing.assert_array_equal(block, leaves.store_kv("scalar", kv_format, x, values))
    held = read_block(block, kv_format, 96, values=values)
    np.testing.assert_array_equal(held[:49], decoded(x, kv_format))
    if kv_format != "q8_0":
        assert np.isnan(held[49:]).all()  # nothing else was written


@pytest.mark.parametrize("values", [False, True])
def test_f16_is_nearest_even(isa, values):
    finite = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (finite[:-1] + finite[1:]) / 2  # exact ties
    x = np.concatenate([finite, between, np.nextafter(between, 0), np.nextafter(between, np.float32(np.inf))])
    x = np.concatenate([x, -x, np.float32([65519.996, 65520, 1e9, np.inf, 1e-9, 2.0**-25, 3e-8, 0])])
    x = np.concatenate([x, np.zeros(-len(x) % 16, np.float32)])
    block = leaves.store_kv(isa, "f16", x[None], values)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float64)
    np.testing.assert_array_equal(read_block(block, "f16", len(x), values=values)[0], expected)


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize(("rows", "head_dim"), [(9, 96), (53, 96), (128, 32), (31, 288), (220, 256)])
def test_a_row_has_the_same_bits_alone_and_among_others(isa, kv_format, rows, head_dim):
    """Also among as many as a prompt's, which go over widened tiles: up to 96 rows of at most 256 values."""
    rng = np.random.default_rng(1)
    query = rng.standard_normal((rows, head_dim)).astype(np.float32)
    keys, values = (rng.standard_normal((64, head_dim)).astype(np.float32) for _ in range(2))
    block = blocks(isa, kv_format, keys, values)
    visible = np.full(rows, 64, np.int32)
    visible[:9] = [64, 3, 64, 0, 1, 17, 64, 63, 33]
    visible[24:32] = rng.integers(1, 65, len(visible[24:32]))
    carried = [a.astype(np.float32) for a in (rng.random(rows), rng.random(rows) + 1, rng.random((rows, head_dim)))]
    together = attend(isa, kv_format, query, *block, visible, *carried)
    for r in range(rows):
        one = slice(r, r + 1)
        alone = attend(isa, kv_format, query[one], *block, visible[one], *(a[one] for a in carried))
        for mine, shared in zip(alone, together, strict=True):
            np.testing.assert_array_equal(mine, shared[one])


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize("head_dim", [32, 96, 256])
@pytest.mark.parametrize("rows", [1, 4, 5, 24])
def test_what_is_read_ahead_changes_nothing(isa, kv_format, head_dim, rows):
    rng = np.random.default_rng(5)
    query, keys = (rng.standard_normal((n, head_dim)).astype(np.float32) for n in (rows, 64))
    for seen in (1, 64):
        block, visible = blocks(isa, kv_format, keys, keys), np.full(rows, seen, np.int32)
        ahead, alone = (
            attend(isa, kv_format, query, *block, visible, *start(rows, head_dim), with_next=with_next)
            for with_next in (True, False)
        )
        for a, b in zip(ahead, alone, strict=True):
            np.testing.assert_array_equal(a, b)


def test_blocks_of_q8_0_have_whole_groups(isa):
    block = np.zeros(64 * 34, np.uint8)  # of head_dim 32, as many bytes as the integer quotient gives for 48
    query, visible = np.ones((1, 48), np.float32), np.ones(1, np.int32)
    with pytest.raises(KernelError, match="contract"):
        attend(isa, "q8_0", query, block, block, visible, *start(1, 48))


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_scores_have_the_same_bits_whatever_the_instruction_set(isa, kv_format):
    if isa == "amx" and kv_format != "f32":
        pytest.skip("tiles have an order of their own")
    rng = np.random.default_rng(4)
    query, keys = (rng.standard_normal((n, 96)).astype(np.float32) for n in (4, 64))
    for seen in (1, 17, 64):
        visible = np.full(4, seen, np.int32)
        block = blocks(isa, kv_format, keys[:seen], keys[:seen])
        largest = attend(isa, kv_format, query, *block, visible, *start(4, 96))[0]
        expected = attend("scalar", kv_format, query, *block, visible, *start(4, 96))[0]
        np.testing.assert_array_equal(largest, expected)


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize("rows", [4, 24])
def test_keys_out_of_sight_may_hold_anything(isa, kv_format, rows):
    rng = np.random.default_rng(2)
    query = rng.standard_normal((rows, 32)).astype(np.float32)
    keys, values = (rng.standard_normal((64, 32)).astype(np.float32) for _ in range(2))
    visible = np.resize(np.array([5, 9, 9, 6], np.int32), rows)
    clean = attend(isa, kv_format, query, *blocks(isa, kv_format, keys, values), visible, *start(rows, 32))
    keys[9:], values[9:] = np.nan, np.inf
    keys[6], values[8] = np.nan, np.nan  # seen by those of 9 only
    for written in (64, 9):  # the rest of the block is 0xff
        block = blocks(isa, kv_format, keys[:written], values[:written])
        dirty = attend(isa, kv_format, query, *block, visible, *start(rows, 32))
        for before, after in zip(clean, dirty, strict=True):
            np.testing.assert_array_equal(after[visible < 9], before[visible < 9])
        assert np.isnan(dirty[2][visible == 9]).all()


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_stray_value_is_not_lost(isa, kv_format, bad):
    keys, values = np.ones((64, 32), np.float32), np.ones((64, 32), np.float32)
    values[7, 3] = bad
    visible = np.array([8], np.int32)
    block = blocks(isa, kv_format, keys, values)
    acc = attend(isa, kv_format, np.ones((1, 32), np.float32), *block, visible, *start(1, 32))[2]
    assert not np.isfinite(acc[0, 3])


@pytest.mark.parametrize("kv_format", ["f16", "q8_0"])
def test_a_row_that_sees_nothing_is_left_alone(isa, kv_format):
    keys = np.full((64, 32), np.nan, np.float32)
    before = start(1, 32)
    block = blocks(isa, kv_format, keys, keys)
    after = attend(isa, kv_format, np.ones((1, 32), np.float32), *block, np.zeros(1, np.int32), *before)
    for mine, was in zip(after, before, strict=True):
        np.testing.assert_array_equal(mine, was)


@pytest.mark.parametrize("kv_format", ["f32", "q8_0"])
def test_scores_of_very_different_size_do_not_overflow(isa, kv_format):
    keys = np.zeros((64, 32), np.float32)
    keys[:3, 0] = [-1e4, 1e4, 9e3]
    values = np.arange(64, dtype=np.float32)[:, None] * np.ones(32, np.float32)
    block = blocks(isa, kv_format, keys, values)
    largest, total, acc = attend(
        isa, kv_format, np.ones((1, 32), np.float32), *block, np.array([64], np.int32), *start(1, 32)
    )
    np.testing.assert_allclose(largest[0], 1e4, rtol=1e-3 if kv_format == "q8_0" else 0)
    assert total[0] == 1
    np.testing.assert_allclose(acc[0], np.ones(32), rtol=1e-3 if kv_format == "q8_0" else 0)


# Relative RMS error of the output against f64 on what the cache holds, of normal values; f16's own is 3e-4, bf16's
# 2.4e-3, q8_0's 7.5e-3.
STATED = {"f32": 2e-6, "f16": 2.5e-5, "bf16": 1.2e-5, "q8_0": 6e-5}


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize("head_dim", [32, 256])
def test_prompt_rows_are_as_exact_as_stated(isa, kv_format, head_dim):
    rng = np.random.default_rng(6)
    query = (rng.standard_normal((24, head_dim)) / np.sqrt(head_dim)).astype(np.float32)
    keys, values = (rng.standard_normal((512, head_dim)).astype(np.float32) for _ in range(2))
    state = start(24, head_dim)
    for begin in range(0, 512, 64):
        some = slice(begin, begin + 64)
        block = blocks(isa, kv_format, keys[some], values[some])
        state = attend(isa, kv_format, query, *block, np.full(24, 64, np.int32), *state)
    weights = np.exp(query.astype(np.float64) @ decoded(keys, kv_format).T)
    exact = weights @ decoded(values, kv_format) / weights.sum(axis=1, keepdims=True)
    error = np.sqrt(np.mean((state[2] / state[1][:, None] - exact) ** 2) / np.mean(exact**2))
    assert error < STATED[kv_format]


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_without_tiles_prompt_rows_are_as_all_rows(isa, kv_format):
    if isa == "amx" and kv_format != "f32":
        pytest.skip("has leaves of its own")
    rng = np.random.default_rng(7)
    query, keys = (rng.standard_normal((n, 32)).astype(np.float32) for n in (5, 64))
    block, visible = blocks(isa, kv_format, keys, keys), np.arange(60, 65, dtype=np.int32)
    prompt, decode = (
        leaves.attend_block(isa, kv_format, query, *block, visible, *start(5, 32), prompt=prompt)
        for prompt in (True, False)
    )
    for mine, other in zip(prompt, decode, strict=True):
        np.testing.assert_array_equal(mine, other)
