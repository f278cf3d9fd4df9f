"""The oracle itself: the torch ops in f64 are transformers' code in f64."""

import numpy as np
import pytest
import torch

from qwick.ops.torch import TorchBackend
from tests.parity.compare import Error, check_close, check_logits, relative_error
from tests.parity.conftest import LENGTHS, NUM_DECODED
from tests.parity.network import CONFIGS, Piece, Runner
from tests.parity.reference import run_exact

# f64 has 2^-52; what is left is the order of sums and the products of rounded exponentials in the chunked delta rule.
EXACT = Error(1e-12, 1e-11)  # measured: 6e-15
# The library's f32 run must be an f32 run: if it were far off, 20 x its error would allow anything.
F32 = Error(2e-5, 2e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_oracle_equals_transformers_in_f64(cases, name):
    case = cases(name)
    reference = run_exact(case.config, case.tensors, case.ids, Runner(case.folder, TorchBackend()).rope)
    check_logits("logits", case.oracle.logits, reference.logits, EXACT)
    check_close("hidden", case.oracle.hidden, reference.hidden, EXACT)


@pytest.mark.parametrize("name", CONFIGS)
def test_tolerances_are_those_of_an_f32_run(cases, name):
    case = cases(name)
    for length in LENGTHS:
        for error in case.library_error(length):
            assert error.total <= F32.total
            assert error.worst_row <= F32.worst_row


@pytest.mark.parametrize("name", CONFIGS)
def test_hard_random_rows_all_differ(cases, name):
    """No row is flat and none repeats another: a wrong row would be seen."""
    logits = cases(name).oracle.logits
    assert 1.5 < logits.std() < 6
    assert np.abs(np.corrcoef(logits[:64]) - np.eye(64)).max() < 0.99


@pytest.mark.parametrize("name", CONFIGS)
def test_the_oracle_in_chunks_is_the_oracle(cases, name):
    """Prompt, decode rows, and a neighbour: in f64 only the order of sums differs."""
    case = cases(name)
    runner = Runner(case.folder, TorchBackend(torch.float64))
    rows = runner.forced(case.ids[: 65 + NUM_DECODED], 65)
    check_close("forced", rows.logits, case.oracle.logits[: len(rows.logits)], EXACT)
    first, other = runner.run(Piece(1, case.ids[:64]), Piece(2, case.ids[:13]))
    second, more = runner.run(Piece(1, case.ids[64:65], 64), Piece(2, case.ids[13:130], 13))
    chunked = np.concatenate([first.logits, second.logits])
    assert relative_error(chunked, case.oracle.logits[:65]).worst_row < EXACT.worst_row
    assert relative_error(np.concatenate([other.logits, more.logits]), case.oracle.logits[:130]).worst_row < 1e-10
