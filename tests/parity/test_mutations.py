"""The parity check sees mistakes: each of these, made in the network, its ops or its tables, turns it red.

A check that cannot fail proves nothing. The oracle is computed unmutated; the mutant runs in f32.
"""

import numpy as np
import pytest
import torch

from qwick.ops.torch import TorchBackend
from tests.checkpoints import small_config, write_checkpoint
from tests.parity import mutations_of_ops, mutations_of_state, mutations_of_tables
from tests.parity.backends import BACKENDS, BEST_ISA, open_backend
from tests.parity.compare import ParityError, relative_error
from tests.parity.network import SEED, Runner, random_ids
from tests.parity.reference import load_reference, load_tensors, run_f32
from tests.parity.scenario import TOTAL_LEN, compare, walk

MARGIN = 10  # a mutant's error is at least so many tolerances

# Grouped V heads, an untied head, two kv heads of four query heads, and an eps that is not negligible.
CONFIG = small_config(tie_word_embeddings=False, rms_norm_eps=1e-3)

MUTATIONS = mutations_of_tables.mutation | mutations_of_ops.mutation | mutations_of_state.mutation
RUNS = [("torch", name) for name in MUTATIONS] + [(BEST_ISA, name) for name in mutations_of_tables.mutation]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Folder, ids, the oracle's parts, and the tolerance of the library's f32 run."""
    folder = write_checkpoint(tmp_path_factory.mktemp("mutations"), CONFIG, SEED)
    ids = random_ids(TOTAL_LEN)
    oracle = Runner(folder, TorchBackend(torch.float64))
    expected = walk(oracle, ids)
    whole = np.concatenate([expected["prompt"], expected["second chunk"]])
    library = run_f32(load_reference(CONFIG, load_tensors(folder)), ids[: len(whole)])
    return folder, ids, expected, relative_error(library.logits, whole).tolerance()


def check(setting, backend):
    folder, ids, expected, allowed = setting
    return compare(walk(Runner(folder, open_backend(backend)), ids), expected, allowed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_mutation_the_check_passes(setting, backend):
    worst = check(setting, backend)
    print(f"{backend}: {worst:.2f} tolerances")
    assert worst < 0.5


@pytest.mark.parametrize(("backend", "name"), RUNS)
def test_a_mutation_turns_the_check_red(setting, monkeypatch, backend, name):
    MUTATIONS[name](monkeypatch)
    with pytest.raises(ParityError) as failure:
        check(setting, backend)
    error, allowed = failure.value.error, failure.value.tolerance
    print(f"{name}: {error / allowed:.0f} tolerances ({failure.value.what})")
    assert error > MARGIN * allowed
