"""Native results are the same bits whoever is in the batch, however a run is cut, with any number of threads."""

from dataclasses import replace

import numpy as np
import pytest

from qwick.formats import BF16, F32, Q8_0
from qwick.ops.contract import KV_FORMATS, Commit, CommitBatch, Role
from qwick.ops.native import NativeBackend
from tests.instruction_sets import ISAS
from tests.ops import small_networks as small
from tests.ops.small_networks import Piece, open_network

LAYERS = {
    f"{name}-{f.name}": layer(f)
    for name, layer in (("delta", small.delta_layer), ("attention", small.attention_layer), ("linear", small.linears))
    for f in (F32, BF16, Q8_0)
}
LAYERS |= {f"attention-{kv_format}-pages": small.attention_layer(F32) for kv_format in KV_FORMATS}
LENGTH = 70


def opened(isa, layer, threads=1):
    kv_format = layer.split("-")[1] if layer.endswith("-pages") else "f16"
    return open_network(LAYERS[layer], NativeBackend(threads, threads, isa), kv_format=kv_format)


def same(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layer", LAYERS)
def test_threads_do_not_matter(isa, layer):
    pieces = [Piece(0, 0, LENGTH), Piece(1, 0, 1, Role.DECODE), Piece(2, 0, 3, Role.DECODE)]
    expected = opened(isa, layer)(pieces)
    for threads in (2, 3):
        same(opened(isa, layer, threads)(pieces), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_threads_do_not_matter_over_a_deep_context(isa, kv_format):
    """They decide how many splits of 512 keys a task takes. Pages are repeated to make 40,000 positions."""
    rows = []
    for threads in (1, 2, 3):
        program = opened(isa, f"attention-{kv_format}-pages", threads)
        program([Piece(0, 0, 256)])
        batch = small.make_batch([Piece(0, 0, 2, Role.DECODE)])
        run = batch.runs[0]
        runs = (replace(run, context_len=40_000, pages=np.resize(run.pages, 626)),)
        rows.append(program.program.run(replace(batch, runs=runs)).hidden.copy())
    same(rows[1], rows[0])
    same(rows[2], rows[0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("role", Role)
def test_chunks_and_neighbours_do_not_matter(isa, layer, role):
    program = opened(isa, layer, 2)
    whole = program([Piece(0, 0, LENGTH, role)])
    cut, at = [], 0
    for length in (1, 15, 1, 31, 22):
        others = [Piece(1, 0, 2, Role.DECODE), Piece(2, 0, 5, Role.PROMPT)]
        rows = program([others[0], Piece(3, at, length, role, sequence=0), others[1]])
        cut.append(rows[2 : 2 + length])
        at += length
    same(np.concatenate(cut), whole)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layer", [name for name in LAYERS if name.startswith("delta")])
def test_a_snapshot_continues_as_if_the_run_had_ended_there(isa, layer):
    program = opened(isa, layer, 2)
    whole = program([Piece(0, 0, LENGTH, snapshots=((33, 5), (1, 6), (LENGTH, 7)))])
    for slot, begin in ((5, 33), (6, 1)):
        rest = program([Piece(slot, begin, LENGTH - begin, sequence=0)])
        same(rest, whole[begin:])
        same(program([Piece(slot, LENGTH, 4, sequence=0)]), program([Piece(7, LENGTH, 4, sequence=0, commit=False)]))


@pytest.mark.parametrize("isa", ISAS)
def test_joined_ops_give_the_bits_of_the_ops_apart(isa):
    joined, apart = (
        open_network(f(F32), NativeBackend(2, 2, isa)) for f in (small.delta_layer, small.delta_layer_apart)
    )
    kinds = [[op[0] for op in program.program.ops] for program in (joined, apart)]
    assert "causal_conv" not in kinds[0]
    assert "causal_conv" in kinds[1]
    draft = [Piece(slot, 0, 8) for slot in range(3)]
    same(joined(draft), apart(draft))
    # Convolution, what it keeps, normalising, recurrence and norm, and the op between: in their place one section.
    assert apart.program.num_sections - joined.program.num_sections == 5
    for pieces in (
        [Piece(0, 0, 20, snapshots=((3, 5),)), Piece(1, 0, 2), Piece(2, 0, 1, Role.DECODE)],
        [Piece(0, 20, 8, Role.DECODE, commit=False), Piece(1, 2, 5, snapshots=((2, 6), (5, 7))), Piece(2, 1, 1)],
        [Piece(0, 20, 1, Role.DECODE), Piece(6, 4, 9, sequence=1), Piece(5, 3, 8, sequence=0), Piece(7, 7, 1)],
    ):
        same(joined(pieces), apart(pieces))


@pytest.mark.parametrize("isa", ISAS)
def test_a_delta_layer_goes_op_by_op_where_heads_would_leave_threads_idle(isa):
    """Two k heads here. Long runs cross chunks of 64 tokens, snapshots on both sides of the cut and on it."""
    snapshots = ((63, 6), (64, 7), (65, 8), (150, 9))
    prompt = [Piece(0, 0, 150, snapshots=snapshots), Piece(1, 0, 2)]
    later = [Piece(0, 150, 70), Piece(1, 2, 1, Role.DECODE), *(Piece(s, n, 8, sequence=0) for n, s in snapshots)]
    decode = [Piece(0, 220, 1, Role.DECODE), Piece(1, 3, 4, Role.DECODE, commit=False)]
    expected, sections = None, {}
    for threads in (1, 2, 8):
        joined, apart = (
            open_network(f(F32), NativeBackend(threads, threads, isa))
            for f in (small.delta_layer, small.delta_layer_apart)
        )
        rows = [[program(pieces).copy() for pieces in (prompt, later)] for program in (joined, apart)]
        sections[threads] = apart.program.num_sections - joined.program.num_sections
        for program, mine in zip((joined, apart), rows, strict=True):
            mine.append(program(decode).copy())
        sections[threads, "decode"] = apart.program.num_sections - joined.program.num_sections
        expected = expected or rows[1]
        for mine in rows:
            for found, wanted in zip(mine, expected, strict=True):
                same(found, wanted)
    assert sections[2] == sections[2, "decode"] == sections[8, "decode"] > 1
    assert sections[8] == 1  # the op between


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layer", [name for name in LAYERS if name.startswith("delta")])
@pytest.mark.parametrize("context", [0, 2, 20])
def test_a_verified_and_committed_draft_equals_a_direct_run(isa, layer, context):
    program = opened(isa, layer, 2)
    commit = program.backend.compile(small.replay(program.backend), max_tokens=8)
    if context:
        program([Piece(0, 0, context)])
        program.backend.copy_slot(0, 1)
    verified = program([Piece(1, context, 8, Role.DECODE, commit=False, sequence=0)])
    commit.run(CommitBatch((Commit(1, 5, context),)))
    same(verified[:5], program([Piece(0, context, 5, Role.DECODE)]))
    after = [program([Piece(slot, context + 5, 3, Role.DECODE, sequence=0)]) for slot in (0, 1)]
    same(*after)
    same(after[0], verified[5:])


def test_verification_and_a_commit_of_nothing_leave_the_slot_alone():
    program = opened(ISAS[-1], "delta-f32")
    commit = program.backend.compile(small.replay(program.backend), max_tokens=8)
    program([Piece(0, 0, 9)])
    first = program([Piece(0, 9, 8, Role.DECODE, commit=False)])
    commit.run(CommitBatch((Commit(0, 0, 9),)))
    commit.run(CommitBatch(()))
    same(program([Piece(0, 9, 8, Role.DECODE, commit=False)]), first)


def test_context_zero_starts_from_nothing_whatever_the_slot_holds():
    program = opened(ISAS[-1], "delta-f32")
    first = program([Piece(0, 0, 2)])
    program([Piece(0, 2, 50)])
    same(program([Piece(0, 0, 2)]), first)


def test_a_copied_page_is_the_page():
    program = opened(ISAS[-1], "attention-f32")
    program([Piece(0, 0, 30)])
    batch = small.make_batch([Piece(0, 30, 1, Role.DECODE)])
    expected = program.program.run(batch).hidden.copy()
    pages = np.array(batch.runs[0].pages)
    pages[0] += 9
    program.backend.copy_page(int(pages[0]) - 9, int(pages[0]))
    moved = replace(batch, runs=(replace(batch.runs[0], pages=pages),))
    same(program.program.run(moved).hidden, expected)
