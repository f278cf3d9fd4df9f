"""A plan as arrays: which ids, at which positions, in which pages, and whose logits are wanted."""

import numpy as np
import pytest

from qwick.engine.batching import MAX_TOP_K, build
from qwick.engine.request import Request, Sequence
from qwick.engine.scheduler import PlannedRun
from qwick.model.config import parse_config
from qwick.model.rope import RopeTable
from qwick.ops.contract import Role
from qwick.sampling.params import SamplingParams
from tests.checkpoints import small_config

ROPE = RopeTable(parse_config(small_config()))


def sequence(index, num_known, num_cached, *, num_prompt=None, **sampling):
    ids = list(range(100 * index, 100 * index + num_known))
    request = Request(tuple(ids[: num_prompt or num_known]), SamplingParams(**sampling))
    made = Sequence(index, request, pages=[index, 7], slot=10 + index, num_cached=num_cached)
    made.token_ids = ids
    return made


def test_rows_lie_in_plan_order_at_the_positions_after_what_is_cached():
    decoding, reading = sequence(1, 31, 30, num_prompt=30), sequence(2, 50, 20)
    batch = build([PlannedRun(decoding, 1), PlannedRun(reading, 5)], ROPE)
    assert batch.token_ids.tolist() == [130, 220, 221, 222, 223, 224]
    cos, sin = ROPE.angles(np.array([30, 20, 21, 22, 23, 24]))
    assert np.array_equal(batch.rope_cos, cos)
    assert np.array_equal(batch.rope_sin, sin)
    first, second = batch.runs
    assert (first.num_tokens, first.role, first.context_len, first.slot) == (1, Role.DECODE, 30, 11)
    assert (second.num_tokens, second.role, second.context_len, second.slot) == (5, Role.PROMPT, 20, 12)
    assert [list(run.pages) for run in batch.runs] == [[1, 7], [2, 7]]
    # Only who reaches its last known token is sampled.
    assert batch.wanted_rows.tolist() == [0]


@pytest.mark.parametrize(
    ("sampling", "top_k"),
    [
        ([{"temperature": 0}], 1),
        ([{"top_k": 20}, {"temperature": 0}], 20),
        ([{"top_k": 20}, {"top_k": 50}], 50),
        ([{"top_k": 20}, {"top_k": 0}], 0),
        ([{"top_k": MAX_TOP_K}], MAX_TOP_K),
        ([{"top_k": MAX_TOP_K + 1}, {"top_k": 5}], 0),
    ],
)
def test_the_head_returns_what_every_sampler_needs(sampling, top_k):
    plan = [PlannedRun(sequence(i, 3, 0, **params), 3) for i, params in enumerate(sampling)]
    assert build(plan, ROPE).top_k == top_k
    assert build(plan[::-1], ROPE).top_k == top_k


def test_a_sequence_that_wants_no_row_does_not_widen_the_choice():
    plan = [PlannedRun(sequence(0, 9, 0, top_k=0), 3), PlannedRun(sequence(1, 3, 0, temperature=0), 3)]
    assert build(plan, ROPE).top_k == 1


def rows_of(batch):
    """The edits of each wanted row: {token: (bias, repetition, offset)}."""
    edits = batch.edits
    spans = zip(edits.row_starts[:-1], edits.row_starts[1:], strict=True)
    return [
        dict(zip(edits.token_ids[a:b].tolist(), map(tuple, edits.values[a:b].tolist()), strict=True)) for a, b in spans
    ]


def test_nobody_s_edits_are_none():
    plan = [PlannedRun(sequence(0, 3, 0), 3), PlannedRun(sequence(1, 9, 0, presence_penalty=1), 3)]
    assert build(plan, ROPE).edits is None  # the second does not reach its last token


def test_each_wanted_row_gets_its_sequence_s_edits():
    plan = [
        PlannedRun(sequence(1, 5, 4, num_prompt=3, presence_penalty=1, frequency_penalty=0.5), 1),
        PlannedRun(sequence(2, 4, 0), 4),
        PlannedRun(sequence(3, 9, 0, presence_penalty=2), 3),  # not wanted
        PlannedRun(sequence(4, 3, 0, repetition_penalty=1.5, logit_bias={7: -1}), 3),
    ]
    batch = build(plan, ROPE)
    assert batch.wanted_rows.tolist() == [0, 4, 10]
    assert rows_of(batch) == [
        {103: (0, 1, -1.5), 104: (0, 1, -1.5)},
        {},
        {7: (-1, 1, 0), 400: (0, 1.5, 0), 401: (0, 1.5, 0), 402: (0, 1.5, 0)},
    ]


def test_edits_follow_the_tokens_from_step_to_step():
    one = sequence(1, 3, 3, frequency_penalty=0.25)
    for count, token in enumerate([5, 5, 9], 1):
        one.token_ids.append(token)
        batch = build([PlannedRun(one, 1)], ROPE)
        one.num_cached += 1
        wanted = {5: (0, 1, -0.25 * min(count, 2))} | ({9: (0, 1, -0.25)} if count == 3 else {})
        assert rows_of(batch) == [wanted]
