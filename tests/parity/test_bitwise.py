"""A token's numbers depend on its role and the weights' format, and on nothing else, bit for bit, on each ISA.

Not on how a prompt is cut into chunks, who else is in the batch, where the pages lie, how many threads work, or whether
a state was carried, committed, copied or restored.
"""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.formats import BF16, F16, F32, Q4_0, Q4_K, Q6_K, Q8_0
from qwick.ops.contract import KV_FORMATS, Role
from tests.checkpoints import small_config, write_checkpoint
from tests.parity.backends import ISAS, open_backend
from tests.parity.network import SEED, Piece, Runner, random_ids

# Wide enough for several pieces of work per thread: more V heads than threads, 3 panels of a ragged vocabulary.
CONFIG = small_config(hidden_size=96, vocab_size=333, linear_num_value_heads=6, linear_value_head_dim=48)
# The same with rows of whole blocks of 256.
LONG_CONFIG = small_config(
    hidden_size=256, intermediate_size=256, vocab_size=333, linear_num_value_heads=16, linear_value_head_dim=16
)
FORMATS = {"f32": F32, "f16": F16, "bf16": BF16, "q8_0": Q8_0, "q4_0": Q4_0, "q4_k": Q4_K, "q6_k": Q6_K}
PROMPT_LEN = 72
NUM_DECODED = 5
TOTAL = PROMPT_LEN + NUM_DECODED
EXAMPLES = settings(max_examples=5, deadline=None)

# The scalar ISA is slow, and one definition serves all of its block families.
OF_SCALAR = ("f32", "bf16", "q4_0")
every_isa_and_format = pytest.mark.parametrize(
    ("isa", "format"), [(i, f) for i in ISAS for f in FORMATS if i != "scalar" or f in OF_SCALAR]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("bitwise"), CONFIG, SEED)


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("bitwise"), LONG_CONFIG, SEED)


@pytest.fixture(scope="module")
def runners(folder, long_folder):
    """(isa, format, threads) -> a runner with f16 pages."""

    @cache
    def make(isa, format, threads=2):
        stored = FORMATS[format]
        path = long_folder if stored.block_len == 256 else folder
        return Runner(path, open_backend(isa, threads), format=stored, kv_format="f16", max_len=192)

    return make


@pytest.fixture(scope="module")
def alone(runners):
    """(isa, format) -> rows of a prompt read at once and decode rows read one by one, alone, with one thread."""

    @cache
    def make(isa, format, seed=0):
        return runners(isa, format, 1).forced(random_ids(TOTAL, seed), PROMPT_LEN)

    return make


def same(actual, expected):
    """Bit for bit."""
    for what in ("logits", "hidden"):
        a, e = getattr(actual, what), getattr(expected, what)
        assert a.dtype == e.dtype == np.float32
        assert a.shape == e.shape
        differ = (a.view(np.uint32) != e.view(np.uint32)).any(axis=-1)
        assert not differ.any(), f"{what} differ in rows {np.flatnonzero(differ)[:8]}"


def part(rows, begin, end):
    return type(rows)(rows.logits[begin:end], rows.hidden[begin:end])


def joined(parts):
    return type(parts[0])(np.concatenate([p.logits for p in parts]), np.concatenate([p.hidden for p in parts]))


@st.composite
def chunkings(draw, total=PROMPT_LEN):
    """Ends of chunks; runs of single tokens are likely."""
    ends, at = [], 0
    while at < total:
        at = min(total, at + draw(st.sampled_from([1, 1, 2, 3, 7, 8, 9, 16, 17, 31, 63, 64, 65])))
        ends.append(at)
    return ends


@every_isa_and_format
@EXAMPLES
@given(ends=chunkings())
def test_any_chunking_equals_the_whole_prompt(runners, alone, isa, format, ends):
    runner, ids, expected = runners(isa, format), random_ids(TOTAL), alone(isa, format)
    chunks = [runner.one(Piece(2, ids[a:b], a)) for a, b in pairwise([0, *ends])]
    same(joined(chunks), part(expected, 0, PROMPT_LEN))
    # What follows stands on the same state, convolution and pages.
    after = [runner.one(Piece(2, ids[i : i + 1], i, Role.DECODE)) for i in range(PROMPT_LEN, TOTAL)]
    same(joined(after), part(expected, PROMPT_LEN, TOTAL))


@every_isa_and_format
@EXAMPLES
@given(chunks=st.lists(chunkings(), min_size=2, max_size=4), turn=st.integers(0, 3), threads=st.sampled_from([1, 2, 3]))
def test_any_company_equals_alone(runners, alone, isa, format, chunks, turn, threads):
    """Sequences that start at different steps, read in their own chunks, then decode while others still read."""
    runner = runners(isa, format, threads)
    ids = [random_ids(TOTAL, seed) for seed in range(len(chunks))]
    done = [[] for _ in chunks]
    ends = [[0, *c, *range(PROMPT_LEN + 1, TOTAL + 1)] for c in chunks]
    at = [-turn * i for i in range(len(chunks))]  # steps until each starts
    while any(a < len(e) - 1 for a, e in zip(at, ends, strict=True)):
        going = [i for i, a in enumerate(at) if 0 <= a < len(ends[i]) - 1]
        pieces = []
        for i in going[::-1] if turn % 2 else going:
            begin, end = ends[i][at[i]], ends[i][at[i] + 1]
            role = Role.DECODE if begin >= PROMPT_LEN else Role.PROMPT
            pieces.append(Piece(i, ids[i][begin:end], begin, role))
        if pieces:
            for piece, rows in zip(pieces, runner.run(*pieces), strict=True):
                done[piece.slot].append(rows)
        at = [a + 1 for a in at]
    for seed, parts in enumerate(done):
        same(joined(parts), alone(isa, format, seed))


@every_isa_and_format
def test_any_number_of_threads(runners, alone, isa, format):
    for threads in (2, 3):
        same(runners(isa, format, threads).forced(random_ids(TOTAL), PROMPT_LEN), alone(isa, format))


@every_isa_and_format
@pytest.mark.parametrize("wrong", range(5))
def test_a_verified_draft_equals_decoding(runners, alone, isa, format, wrong):
    """Rows before the first wrong token are decode rows; committing them leaves what decoding them leaves."""
    runner, ids, expected = runners(isa, format), random_ids(TOTAL), alone(isa, format)
    runner.one(Piece(0, ids[:PROMPT_LEN]))
    draft = ids[PROMPT_LEN:TOTAL].copy()
    draft[wrong:] = (draft[wrong:] + 1) % 333
    same(
        part(runner.one(Piece(0, draft, PROMPT_LEN, Role.DECODE, commit=False)), 0, wrong),
        part(expected, PROMPT_LEN, PROMPT_LEN + wrong),
    )
    if wrong:
        runner.commit(0, wrong, PROMPT_LEN)
    after = [runner.one(Piece(0, ids[i : i + 1], i, Role.DECODE)) for i in range(PROMPT_LEN + wrong, TOTAL)]
    same(joined(after), part(expected, PROMPT_LEN + wrong, TOTAL))


@every_isa_and_format
@EXAMPLES
@given(cut=st.integers(1, PROMPT_LEN - 1), again=st.integers(1, 40))
def test_a_snapshot_restores_the_state(runners, alone, isa, format, cut, again):
    """Inside a run, and by copying the slot; the run that was snapshot is not disturbed."""
    runner, ids, expected = runners(isa, format), random_ids(TOTAL), alone(isa, format)
    same(runner.one(Piece(0, ids[:PROMPT_LEN], snapshots=((cut, 3),))), part(expected, 0, PROMPT_LEN))
    end = min(PROMPT_LEN, cut + again)
    runner.backend.copy_slot(3, 4)
    for slot in (3, 4):
        same(runner.one(Piece(slot, ids[cut:end], cut, pages_of=0)), part(expected, cut, end))
    decoded = runner.one(Piece(0, ids[PROMPT_LEN : PROMPT_LEN + 1], PROMPT_LEN, Role.DECODE))
    same(decoded, part(expected, PROMPT_LEN, PROMPT_LEN + 1))


@every_isa_and_format
def test_a_copied_page_holds_the_same_keys(runners, alone, isa, format):
    """Copy on write of a partial page: the copy goes on, the original may be overwritten."""
    runner, ids, expected = runners(isa, format), random_ids(TOTAL), alone(isa, format)
    runner.one(Piece(0, ids[:70]))
    runner.backend.copy_slot(0, 1)
    for source, target in zip(runner.pages(0), runner.pages(1), strict=True):
        runner.backend.copy_page(source, target)
    runner.one(Piece(0, (ids[:72] + 5) % 333))
    same(runner.one(Piece(1, ids[70:PROMPT_LEN], 70)), part(expected, 70, PROMPT_LEN))


@every_isa_and_format
def test_drafts_do_not_depend_on_company(runners, isa, format):
    runner = runners(isa, format)
    ids, others = random_ids(TOTAL), random_ids(TOTAL, 1)
    hidden = runner.one(Piece(0, ids[:60])).hidden
    one, two = Piece(0, ids[1:61], hidden=hidden), Piece(1, others[1:41], hidden=hidden[:40])
    expected = runner.one(one, "draft")
    same(runner.run(two, one, program="draft")[1], expected)
    chunks = [(0, 1), (1, 33), (33, 60)]
    parts = [runner.one(Piece(0, ids[a + 1 : b + 1], a, hidden=hidden[a:b]), "draft") for a, b in chunks]
    same(joined(parts), expected)


@every_isa_and_format
def test_wanted_rows_and_top_k_are_those_of_all_logits(runners, alone, isa, format):
    """In both roles; ties go to the lower id, and the log-sum-exp is that of the whole vocabulary."""
    runner, ids, rows = runners(isa, format), random_ids(TOTAL), alone(isa, format)
    for wanted in ([PROMPT_LEN - 1], [0, 17, 18, 71], list(range(PROMPT_LEN)), []):
        batch = runner.batch([Piece(0, ids[:PROMPT_LEN])], wanted)
        logits = runner.programs["forward"].run(batch).logits
        assert np.array_equal(logits.view(np.uint32), rows.logits[wanted].view(np.uint32))
    for k in (1, 5, 333):
        result = runner.result(Piece(0, ids[:PROMPT_LEN]), wanted=[3, 71], top_k=k)
        check_top_k(result, rows.logits[[3, 71]], k)
        result = runner.result(Piece(0, ids[PROMPT_LEN : PROMPT_LEN + 1], PROMPT_LEN, Role.DECODE), wanted=[0], top_k=k)
        check_top_k(result, rows.logits[[PROMPT_LEN]], k)


def check_top_k(result, logits, k):
    order = np.lexsort((np.broadcast_to(np.arange(logits.shape[1]), logits.shape), -logits))[:, :k]
    assert np.array_equal(result.top_ids, order)
    assert np.array_equal(result.top_logits, np.take_along_axis(logits, order, axis=1))
    exact = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    # A sum of f32 exponentials in some order, then a logarithm.
    assert np.abs(result.logsumexp - exact).max() < 4 * 2.0**-23 * np.abs(exact).max()
    assert result.logits is None


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_a_context_of_several_attention_splits(folder, isa, kv_format):
    """Splits lie on absolute positions: chunks that end inside them, and decode rows behind them, change nothing."""
    runner = Runner(
        folder, open_backend(isa), format=BF16, kv_format=kv_format, max_len=1100, num_slots=2, max_tokens=1100
    )
    ids = random_ids(1060)
    whole = runner.one(Piece(0, ids))
    ends = [500, 511, 512, 513, 700, 1023, 1060]
    chunks = [runner.one(Piece(1, ids[a:b], a)) for a, b in pairwise([0, *ends])]
    same(joined(chunks), whole)
    decode = Piece(0, ids[:1], 1060, Role.DECODE, commit=False)
    same(runner.run(Piece(1, ids[:40]), decode)[1], runner.one(decode))


@pytest.mark.parametrize("format", ["bf16", "q4_0"])
@pytest.mark.parametrize("isa", ISAS)
def test_roles_do_differ(runners, isa, format):
    """Else equality above would say little: with coarse weights a decode row has other numerics than a prompt row."""
    runner, ids = runners(isa, format), random_ids(20)
    prompt = runner.one(Piece(0, ids)).logits
    decode = runner.one(Piece(0, ids, role=Role.DECODE)).logits
    assert not np.array_equal(prompt, decode)
