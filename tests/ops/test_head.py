"""The head alone: numerics that no role changes, rows that do not depend on how many are wanted, and the choice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.formats import BF16, F32, Q8_0
from qwick.ops.contract import Batch, LogitEdits, Outputs, Role, Run
from qwick.ops.native import NativeBackend
from tests.instruction_sets import ISAS
from tests.ops import small_networks as small
from tests.ops.small_networks import Piece, make_batch, open_network

LENGTH = 150  # wanted rows: more than are computed together, and not a multiple of that


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", [F32, BF16, Q8_0])
def test_a_row_has_the_same_logits_in_either_role(isa, format):
    program = open_network(small.head(format), NativeBackend(2, 2, isa)).program
    pieces = [Piece(0, 0, 20, Role.PROMPT), Piece(1, 0, 20, Role.DECODE, sequence=0), Piece(2, 0, 3)]
    logits = program.run(make_batch(pieces, wanted=[0, 7, 19, 20, 27, 39, 42])).logits
    np.testing.assert_array_equal(logits[:3].view(np.uint32), logits[3:6].view(np.uint32))
    alone = program.run(make_batch(pieces[:1], wanted=[7])).logits
    np.testing.assert_array_equal(alone.view(np.uint32), logits[1:2].view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", [F32, Q8_0])
def test_many_wanted_rows_have_the_logits_of_each_alone(isa, format):
    program = open_network(small.head(format), NativeBackend(2, 2, isa)).program
    batch = make_batch([Piece(0, 0, LENGTH)], wanted=range(LENGTH))
    edits = LogitEdits(  # row i: token 30 i raised to the top
        np.arange(LENGTH + 1, dtype=np.int32),
        np.arange(LENGTH, dtype=np.int32) * 30,
        np.tile(np.array([0, 1, 100], np.float32), (LENGTH, 1)),
    )
    for kind in (batch, replace(batch, edits=edits)):
        logits = program.run(kind).logits.copy()
        result = program.run(replace(kind, top_k=3, logsumexp=True))
        order = np.argsort(-logits, axis=1, kind="stable")[:, :3]
        np.testing.assert_array_equal(result.top_ids, order)
        np.testing.assert_array_equal(result.top_logits, np.take_along_axis(logits, order, 1))
    assert (order[:, 0] == edits.token_ids).all()
    sums = result.logsumexp.copy()
    for row in (0, 63, 64, 128, LENGTH - 1):
        alone = program.run(replace(make_batch([Piece(0, 0, LENGTH)], wanted=[row], top_k=1), logsumexp=True))
        assert alone.logsumexp[0] == sums[row]


def head_of(values):
    """A program whose row r has the logits values * 2^r."""
    backend = NativeBackend(2)
    table = backend.add_matrix("table", (len(values), 32), F32, [(0, first_column(values))])
    x = backend.add_matrix("x", (4, 32), F32, [(0, first_column(2.0 ** np.arange(4)))])

    def network(ops, step):
        return Outputs(head=ops.head(ops.embed(x, step), table, step))

    return backend.compile(network, max_tokens=4)


def first_column(values):
    rows = np.zeros((len(values), 32), np.float32)
    rows[:, 0] = values
    return rows


VALUES = {
    "few values": [0.0, 1.0, 2.0],
    "odd ones": [-np.inf, np.nan, -1.0, 3.0, np.inf],
    "no numbers": [-np.inf, np.nan],
    "all kinds": [],
}


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_choice_is_that_of_a_sort(kind, data):
    """Larger logit first, equal ones by id, NaN as if minus infinity; whatever edits do to a few logits."""
    size = data.draw(st.sampled_from([1, 5, 255, 256, 257, 700, 3000]))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    values = rng.choice(VALUES[kind], size) if VALUES[kind] else rng.standard_normal(size) * 4
    program = head_of(values.astype(np.float32))
    count = int(rng.integers(0, size + 1)) if data.draw(st.booleans()) else 0
    edits = LogitEdits(  # of row 1 only
        np.array([0, 0, count, count], np.int32),
        rng.permutation(size)[:count].astype(np.int32),
        np.stack([rng.choice([0, -np.inf, -5, 5], count), np.full(count, 1.5), rng.choice([0, 3], count)], 1),
    )
    angles, run = np.zeros((3, 0), np.float32), Run(3, Role.DECODE, 0, 0, ())
    batch = Batch(np.arange(3, dtype=np.int32), angles, angles, (run,), np.arange(3, dtype=np.int32), edits=edits)
    logits = program.run(batch).logits.copy()
    for k in {1, min(size, 20), min(size, 64), size}:
        result = program.run(replace(batch, top_k=k))
        order = np.argsort(-np.where(np.isnan(logits), -np.inf, logits), axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(result.top_ids, order)
        np.testing.assert_array_equal(result.top_logits, np.take_along_axis(logits, order, 1))
        assert result.logsumexp is None
