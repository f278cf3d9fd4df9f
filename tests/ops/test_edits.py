"""Edits of single logits: the same in C++, torch and numpy, before the choice of the top-k, after the log-sum-exp."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.errors import KernelError
from qwick.formats import F32
from qwick.ops.contract import LogitEdits, Role
from qwick.ops.native import NativeBackend
from qwick.ops.torch import TorchBackend
from tests.instruction_sets import ISAS
from tests.ops import small_networks as small
from tests.ops.small_networks import Piece, make_batch, open_network

torch.set_num_threads(1)
PIECES, WANTED, ROWS, VOCAB = [Piece(0, 0, 9), Piece(1, 0, 1, Role.DECODE), Piece(2, 0, 4)], (0, 8, 9, 13), 4, 5000


@pytest.fixture(scope="module", params=ISAS)
def native(request):
    return open_network(small.head(F32), NativeBackend(2, 2, request.param)).program


@pytest.fixture(scope="module")
def oracle():
    return open_network(small.head(F32), TorchBackend(torch.float64)).program


def edits_of(*rows):
    """From {id: (bias, repetition, offset)} for each row."""
    counts = [len(row) for row in rows]
    values = [value for row in rows for value in row.values()]
    ids = np.array([i for row in rows for i in row], np.int32)
    return LogitEdits(np.cumsum([0, *counts]).astype(np.int32), ids, np.array(values, np.float32).reshape(-1, 3))


def random_edits(seed, count, scale=2.0):
    """`count` entries in row 1, none in row 2, a few elsewhere; signs, sizes and chunks of all kinds."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in (3, count, 0, count // 7):
        ids = rng.permutation(VOCAB)[:n].tolist()
        bias, offset = rng.standard_normal((2, n)) * scale
        bias[rng.random(n) < 0.3] = 0
        bias[rng.random(n) < 0.05] = -np.inf
        repetition = np.exp(rng.standard_normal(n) * 0.3)
        rows.append(dict(zip(ids, zip(bias, repetition, offset, strict=True), strict=True)))
    return edits_of(*rows)


def edited(logits, edits):
    """The contract in numpy, one entry at a time."""
    out = logits.copy()
    for row in range(len(out)):
        for i in range(edits.row_starts[row], edits.row_starts[row + 1]):
            bias, repetition, offset = edits.values[i].astype(out.dtype)
            x = out[row, edits.token_ids[i]] + bias
            out[row, edits.token_ids[i]] = (x / repetition if x > 0 else x * repetition) + offset
    return out


def run(program, edits, top_k=0):
    result = program.run(replace(make_batch(PIECES, WANTED, top_k), edits=edits, logsumexp=True))
    copies = (None if x is None else x.copy() for x in (result.logits, result.top_ids, result.top_logits))
    return (*copies, None if result.logsumexp is None else result.logsumexp.copy())


@pytest.mark.parametrize("count", [0, 1, 40, VOCAB])
def test_all_logits_and_the_top_are_the_edited_ones_bit_for_bit(native, count):
    plain = run(native, None)[0]
    edits = random_edits(count, count)
    full = run(native, edits)[0]
    np.testing.assert_array_equal(full, edited(plain, edits))
    np.testing.assert_array_equal(full[2], plain[2])
    for top_k in (1, 20, 3000, VOCAB):
        _, ids, logits, logsumexp = run(native, edits, top_k)
        order = np.argsort(-full, axis=1, kind="stable")[:, :top_k]
        np.testing.assert_array_equal(ids, order)
        np.testing.assert_array_equal(logits, np.take_along_axis(full, order, 1))
        np.testing.assert_array_equal(logsumexp, run(native, None, top_k)[3])


def test_native_torch_and_numpy_agree(native, oracle):
    edits = random_edits(7, 300)
    exact = run(oracle, None)[0]
    np.testing.assert_allclose(run(oracle, edits)[0], edited(exact, edits), rtol=0, atol=2e-6)
    np.testing.assert_allclose(run(native, edits)[0], run(oracle, edits)[0], rtol=0, atol=2e-5)
    _, ids, logits, logsumexp = run(oracle, edits, 20)
    order = np.argsort(-run(oracle, edits)[0], axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(logits, np.take_along_axis(run(oracle, edits)[0], order, 1))
    np.testing.assert_allclose(logsumexp, np.log(np.exp(exact.astype(np.float64)).sum(1)), rtol=0, atol=1e-6)


def test_lowering_the_whole_top_brings_up_the_next(native):
    """More edits than candidates, in every chunk: what was skipped before must be found."""
    plain = run(native, None)[0]
    order = np.argsort(-plain, axis=1, kind="stable")
    lowered = edits_of(*({int(i): (-np.inf, 1, 0) for i in row[:200]} for row in order))
    _, ids, _, _ = run(native, lowered, 20)
    np.testing.assert_array_equal(ids, order[:, 200:220])
    raised = edits_of(*({int(i): (0, 1, 50) for i in row[-20:]} for row in order))
    _, ids, _, _ = run(native, raised, 20)
    np.testing.assert_array_equal(np.sort(ids), np.sort(order[:, -20:]))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.integers(0, 200), st.integers(1, 40))
def test_a_row_is_edited_alike_alone_and_among_others(seed, count, top_k):
    program = opened()
    edits = random_edits(seed, count, scale=20)
    _, ids, logits, _ = run(program, edits, top_k)
    begin, end = edits.row_starts[1:3]
    own = LogitEdits(np.array([0, end - begin], np.int32), edits.token_ids[begin:end], edits.values[begin:end])
    alone = program.run(replace(make_batch(PIECES[:1], WANTED[1:2], top_k), edits=own))
    np.testing.assert_array_equal(alone.top_ids[0], ids[1])
    np.testing.assert_array_equal(alone.top_logits[0], logits[1])


_OPENED = []


def opened():
    if not _OPENED:
        _OPENED.append(open_network(small.head(F32), NativeBackend(2)).program)
    return _OPENED[0]


GOOD = edits_of({1: (0, 1, 0)}, {}, {2: (1, 2, 3), 7: (0, 1, 0)}, {})
MALFORMED = {
    "too few rows": replace(GOOD, row_starts=GOOD.row_starts[:-1]),
    "too many rows": replace(GOOD, row_starts=np.append(GOOD.row_starts, 3).astype(np.int32)),
    "a start beyond the end": replace(GOOD, row_starts=np.array([0, 9, 3, 3, 3], np.int32)),
    "a negative start": replace(GOOD, row_starts=np.array([0, -1, 3, 3, 3], np.int32)),
    "a first start": replace(GOOD, row_starts=np.array([1, 1, 1, 3, 3], np.int32)),
    "a last start": replace(GOOD, row_starts=np.array([0, 1, 1, 2, 2], np.int32)),
    "fewer values": replace(GOOD, values=GOOD.values[:2]),
    "narrow values": replace(GOOD, values=GOOD.values[:, :2]),
    "an id twice": replace(GOOD, token_ids=np.array([1, 7, 7], np.int32)),
    "an id too high": replace(GOOD, token_ids=np.array([1, 2, VOCAB], np.int32)),
    "a negative id": replace(GOOD, token_ids=np.array([-1, 2, 7], np.int32)),
} | {
    f"{name} {value}": edits_of({1: tuple(value if field == at else 1 for field in range(3))}, {}, {}, {})
    for at, name, values in (
        (0, "bias", (np.nan, np.inf)),
        (1, "repetition", (0, -1, np.nan, np.inf)),
        (2, "offset", (np.nan, np.inf, -np.inf)),
    )
    for value in values
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("top_k", [0, 5])
def test_malformed_edits_are_refused(what, top_k):
    with pytest.raises(KernelError, match="malformed batch"):
        run(opened(), MALFORMED[what], top_k)
    run(opened(), GOOD, top_k)


def test_the_same_id_in_two_rows_is_fine():
    run(opened(), replace(GOOD, token_ids=np.array([7, 2, 7], np.int32)))


@settings(max_examples=200)
@given(st.data())
def test_random_edits_never_crash(data):
    number = st.one_of(st.integers(-2, 9), st.integers(-(2**31), 2**31 - 1))
    starts = np.array(data.draw(st.lists(number, max_size=6)), np.int32)
    ids = np.array(data.draw(st.lists(number, max_size=6)), np.int32)
    values = data.draw(st.lists(st.tuples(*[st.floats(width=32)] * 3), max_size=6))
    edits = LogitEdits(starts, ids, np.array(values, np.float32).reshape(-1, 3))
    with contextlib.suppress(KernelError):
        run(opened(), edits, data.draw(st.integers(0, 3)))
