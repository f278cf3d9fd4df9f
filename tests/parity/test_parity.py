"""Parity: f32 runs against the f64 oracle, at most 20 x the error of transformers' own f32 run."""

import numpy as np
import pytest
import torch

from qwick.ops.contract import Role
from qwick.ops.torch import TorchBackend
from tests.parity.backends import BACKENDS, BEST_ISA, open_backend
from tests.parity.compare import check_close, check_logits, relative_error
from tests.parity.conftest import LENGTHS, NUM_DECODED
from tests.parity.network import CONFIGS, Piece, Runner, random_ids
from tests.parity.reference import MtpBlock, load_reference, run_f32

# The best instruction set with every config; the others, and torch in f32, with those whose shapes differ most.
FEW = ("ratio2_untied", "ratio3_groups1", "odd_dims")
RUNS = [(backend, name) for backend in BACKENDS for name in (CONFIGS if backend == BEST_ISA else FEW)]


@pytest.mark.parametrize(("backend", "name"), RUNS)
def test_teacher_forced_logits_and_hidden_state(cases, name, backend):
    """A prompt of each length, then decode rows; every row's logits, winner and hidden state."""
    case = cases(name)
    runner = Runner(case.folder, open_backend(backend))
    for length in LENGTHS:
        count = length + NUM_DECODED
        rows = runner.forced(case.ids[:count], length)
        logits, hidden = case.tolerance(length)
        check_logits(f"prompt of {length}", rows.logits, case.oracle.logits[:count], logits)
        check_close(f"hidden, prompt of {length}", rows.hidden, case.oracle.hidden[:count], hidden)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_context_of_several_attention_splits(cases, backend):
    """Past 512 keys the attention merges splits; a chunk ends inside one."""
    case, ids = cases("deep_groups4"), random_ids(1100)
    oracle = Runner(case.folder, TorchBackend(torch.float64), max_len=1100, num_slots=1, max_tokens=1100)
    expected = oracle.one(Piece(0, ids)).logits
    library = run_f32(load_reference(case.config, case.tensors), ids).logits
    runner = Runner(case.folder, open_backend(backend), max_len=1100, num_slots=1, max_tokens=1100)
    parts = [runner.one(Piece(0, ids[a:b], a)).logits for a, b in ((0, 520), (520, 1090))]
    parts += [runner.one(Piece(0, ids[i : i + 1], i, Role.DECODE)).logits for i in range(1090, 1100)]
    check_logits("1,100 tokens", np.concatenate(parts), expected, relative_error(library, expected).tolerance())


@pytest.mark.parametrize(("backend", "name"), RUNS)
def test_chunks_beside_neighbours(cases, name, backend):
    """Three sequences, read in unequal chunks in the same batches, one of them token by token as decode rows."""
    case = cases(name)
    runner = Runner(case.folder, open_backend(backend))
    logits, _ = case.tolerance(65)
    ends = ((0, 1, 64, 65), (0, 30, 31, 65), (0, 1, 2, 3))
    done = [[], [], []]
    for begin, end in ((0, 1), (1, 2), (2, 3)):
        pieces = [
            Piece(slot, case.ids[at[begin] : at[end]], at[begin], Role.DECODE if slot == 2 else Role.PROMPT)
            for slot, at in enumerate(ends)
        ]
        for rows, piece in zip(runner.run(*pieces), pieces, strict=True):
            done[piece.slot].append(rows.logits)
    for rows in done:
        joined = np.concatenate(rows)
        check_logits("chunks", joined, case.oracle.logits[: len(joined)], logits)


@pytest.mark.parametrize(("backend", "name"), RUNS)
def test_verified_drafts_and_snapshots(cases, name, backend):
    """Rows of an uncommitted draft, what follows its committed part, and what follows a snapshot inside a prompt."""
    case = cases(name)
    runner = Runner(case.folder, open_backend(backend))
    logits, _ = case.tolerance(65)
    ids, expected = case.ids, case.oracle.logits
    runner.one(Piece(0, ids[:40], snapshots=((17, 3), (40, 4))))
    wrong = (ids[42:45] + 1) % 300
    draft = np.concatenate([ids[40:42], wrong])
    verified = runner.one(Piece(0, draft, 40, Role.DECODE, commit=False)).logits
    check_logits("verified", verified[:2], expected[40:42], logits)
    runner.commit(0, 2, 40)
    check_logits("after commit", runner.one(Piece(0, ids[42:50], 42)).logits, expected[42:50], logits)
    later = runner.one(Piece(4, ids[40:50], 40, pages_of=0)).logits
    check_logits("snapshot at the end", later, expected[40:50], logits)
    earlier = runner.one(Piece(3, ids[17:50], 17, pages_of=0)).logits
    check_logits("snapshot inside", earlier, expected[17:50], logits)


@pytest.mark.parametrize(("backend", "name"), RUNS)
def test_drafts_of_the_mtp_block(cases, name, backend):
    """Prompt fill, single draft steps over the carried KV, and chained drafts on the block's own normed output."""
    case = cases(name)
    expected = draft_steps(case, Runner(case.folder, TorchBackend(torch.float64)))
    actual = draft_steps(case, Runner(case.folder, open_backend(backend)))
    logits, hidden = case.tolerance(65)
    for what, rows in expected.items():
        check_logits(what, actual[what].logits, rows.logits, logits)
        check_close(f"{what}, hidden", actual[what].hidden, rows.hidden, hidden)


def draft_steps(case, runner):
    """The trunk's hidden state is the oracle's in both, so that only the block is compared."""
    ids, hidden = case.ids, np.asarray(case.oracle.hidden, np.float32)
    steps = {"fill": runner.one(Piece(0, ids[1:66], hidden=hidden[:65]), "draft")}
    for i in (65, 66):
        steps[f"step {i}"] = runner.one(Piece(0, ids[i + 1 : i + 2], i, Role.DECODE, hidden=hidden[i : i + 1]), "draft")
    last = np.asarray(steps["step 66"].hidden, np.float32)
    for i in (67, 68):
        steps[f"chained {i}"] = runner.one(Piece(0, ids[i + 1 : i + 2], i, Role.DECODE, hidden=last), "draft")
        last = np.asarray(steps[f"chained {i}"].hidden, np.float32)
    return steps


@pytest.mark.parametrize("name", CONFIGS)
def test_the_mtp_oracle_equals_the_block_made_of_the_librarys_parts(cases, name):
    from transformers import DynamicCache

    case = cases(name)
    runner = Runner(case.folder, TorchBackend(torch.float64))
    block, cache = MtpBlock(case.config, case.tensors, runner.rope), DynamicCache()
    ids, hidden = case.ids, torch.from_numpy(np.asarray(case.oracle.hidden, np.float32))
    last = hidden[66:67]
    for what, rows in draft_steps(case, runner).items():
        at = 0 if what == "fill" else int(what.split()[1])
        count = 65 if what == "fill" else 1
        given = last if what.startswith("chained") else hidden[at : at + count]
        expected = block.draft(ids[at + 1 : at + 1 + count], given, cache, at)
        last = expected.hidden.float()
        # A chained step's input is rounded to f32 in both, not always to the same neighbour.
        allowed = 1e-6 if what.startswith("chained") else 1e-11
        assert torch.allclose(torch.from_numpy(rows.logits), expected.logits, rtol=0, atol=allowed * 30), what
        assert torch.allclose(torch.from_numpy(rows.hidden), expected.hidden, rtol=0, atol=allowed * 30), what
