"""The head alone: its numerics do not depend on roles, and its rows not on how many are wanted."""

from dataclasses import replace

import numpy as np
import pytest

from qwick.formats import BF16, F32, Q8_0
from qwick.ops.contract import LogitEdits, Role
from qwick.ops.native import NativeBackend, describe_machine
from tests.ops import small_networks as small
from tests.ops.small_networks import Piece, make_batch, open_network

ISAS = describe_machine().possible_isas
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
        result = program.run(replace(kind, top_k=3))
        order = np.argsort(-logits, axis=1, kind="stable")[:, :3]
        np.testing.assert_array_equal(result.top_ids, order)
        np.testing.assert_array_equal(result.top_logits, np.take_along_axis(logits, order, 1))
    assert (order[:, 0] == edits.token_ids).all()
    sums = result.logsumexp.copy()
    for row in (0, 63, 64, 128, LENGTH - 1):
        alone = program.run(make_batch([Piece(0, 0, LENGTH)], wanted=[row], top_k=1))
        assert alone.logsumexp[0] == sums[row]
