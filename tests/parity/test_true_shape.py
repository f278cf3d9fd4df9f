"""Parity at the true 0.8B shape, hard-random BF16 files as released. Needs about 9 GiB; the folder takes 1.6 GB.

One model is in memory at a time: the f64 oracle, then transformers, then qwick in each format.
"""

import gc
from itertools import pairwise

import numpy as np
import pytest
import torch

from qwick.formats import F32, Q8_0
from qwick.model.config import load_config
from qwick.model.rope import RopeTable
from qwick.ops.contract import Role
from tests.checkpoints import RELEASED, write_checkpoint
from tests.parity.backends import BEST_ISA, open_backend
from tests.parity.compare import Error, check_close, check_logits, relative_error
from tests.parity.network import SEED, Piece, Rows, Runner, random_ids
from tests.parity.reference import MtpBlock, load_reference, load_tensors, run_f32
from tests.parity.rounding import RoundingBackend, modelled

pytestmark = pytest.mark.slow

CONFIG = RELEASED["0.8b"]
LENGTHS = (1, 64, 65)
TOTAL = 68
NUM_DRAFTED = 12


@pytest.fixture(scope="module", autouse=True)
def _two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("true_shape"), CONFIG, SEED, dtype="BF16")


def runner_of(folder, backend, format=None):
    gc.collect()
    return Runner(folder, backend, format=format, max_len=128, num_slots=2, max_tokens=TOTAL)


@pytest.fixture(scope="module")
def ids():
    return random_ids(TOTAL, vocab=248_320)


@pytest.fixture(scope="module")
def oracle(folder, ids):
    """Trunk rows in f64, drafts over the first of them, and the error that rounding prompt rows must make."""
    runner = runner_of(folder, RoundingBackend(torch.float64))
    trunk = runner.one(Piece(0, ids))
    rounded = relative_error(modelled(runner, ids, Role.PROMPT, BEST_ISA), trunk.logits)
    return trunk, drafted(runner, ids, trunk.hidden), rounded


@pytest.fixture(scope="module")
def allowed(folder, ids, oracle):
    """20 x the error of transformers' f32 run, which must be an f32 run's."""
    model = load_reference(CONFIG, load_tensors(folder))
    reference = run_f32(model, ids)
    trunk = oracle[0]
    errors = [relative_error(reference.logits, trunk.logits), relative_error(reference.hidden, trunk.hidden)]
    print(f"transformers f32: logits {errors[0]}, hidden {errors[1]}")
    assert all(error.total < 1e-4 for error in errors)
    return [error.tolerance() for error in errors]


def drafted(runner, ids, hidden) -> Rows:
    hidden = np.asarray(hidden, np.float32)[:NUM_DRAFTED]
    return runner.one(Piece(1, ids[1 : 1 + NUM_DRAFTED], role=Role.DECODE, hidden=hidden), "draft")


def check(what, actual, expected, allowed):
    logits = check_logits(what, actual.logits, expected.logits, allowed[0])
    hidden = check_close(f"{what}, hidden", actual.hidden, expected.hidden, allowed[1])
    print(f"{what}: logits {logits}, hidden {hidden}, allowed {allowed[0].total:.1e}")


def first(rows, count):
    return Rows(rows.logits[:count], rows.hidden[:count])


def test_the_mtp_oracle_is_the_block_made_of_the_librarys_parts(folder, ids, oracle):
    trunk, draft, _ = oracle
    hidden = torch.from_numpy(np.asarray(trunk.hidden[:NUM_DRAFTED], np.float32))
    block = MtpBlock(CONFIG, load_tensors(folder), RopeTable(load_config(folder)))
    expected = block.draft(ids[1 : 1 + NUM_DRAFTED], hidden)
    check_logits("draft", draft.logits, expected.logits, Error(1e-11, 1e-10))


def test_f32_weights(folder, ids, oracle, allowed):
    """Prompts of each length, then decode rows to the end; drafts."""
    trunk, draft, _ = oracle
    runner = runner_of(folder, open_backend(BEST_ISA), F32)
    for length in LENGTHS:
        count = min(TOTAL, length + 3)
        check(f"f32, prompt of {length}", runner.forced(ids[:count], length), first(trunk, count), allowed)
    check("f32, draft", drafted(runner, ids, trunk.hidden), draft, allowed)


def test_bf16_weights(folder, ids, oracle, allowed):
    """As the file has them: decode rows are as exact as with f32 weights; prompt rows round both operands."""
    trunk, draft, rounded = oracle
    runner = runner_of(folder, open_backend(BEST_ISA))
    check("bf16, decode rows", runner.one(Piece(0, ids[:20], role=Role.DECODE)), first(trunk, 20), allowed)
    check("bf16, draft", drafted(runner, ids, trunk.hidden), draft, allowed)
    error = relative_error(runner.one(Piece(0, ids)).logits, trunk.logits)
    print(f"bf16, prompt rows: {error}, modelled {rounded}")
    assert error.total < 1.1 * rounded.total


@pytest.fixture(scope="module")
def q8_0(folder, ids):
    """Rows in f64 on the dequantised weights, and what rounding the activations must cost by role."""
    runner = runner_of(folder, RoundingBackend(torch.float64), Q8_0)
    exact = runner.one(Piece(0, ids[:20])).logits
    return exact, {role: relative_error(modelled(runner, ids[:20], role, BEST_ISA), exact) for role in Role}


@pytest.mark.parametrize("role", Role)
def test_q8_0_weights(folder, ids, q8_0, role):
    exact, expected = q8_0
    actual = runner_of(folder, open_backend(BEST_ISA), Q8_0).one(Piece(0, ids[:20], role=role)).logits
    error = relative_error(actual, exact)
    print(f"q8_0, {role.name} rows: {error}, modelled {expected[role]}")
    assert error.total < 1.1 * expected[role].total


def test_chunks_and_threads_give_the_same_bits(folder, ids):
    whole = None
    for threads, ends in ((2, [TOTAL]), (1, [1, 33, TOTAL]), (3, [64, 65, TOTAL])):
        runner = runner_of(folder, open_backend(BEST_ISA, threads), Q8_0)
        parts = [runner.one(Piece(0, ids[a:b], a)).logits for a, b in pairwise([0, *ends])]
        whole = np.concatenate(parts) if whole is None else whole
        assert np.array_equal(np.concatenate(parts), whole)
        del runner
