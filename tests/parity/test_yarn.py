"""A network with YaRN gives the library's logits; without it, or with another factor, quite different ones."""

import numpy as np
import pytest

from qwick.ops.contract import Role
from qwick.ops.native import NativeBackend
from tests.checkpoints import small_config, write_checkpoint, yarn_config
from tests.parity.compare import relative_error
from tests.parity.network import SEED, Piece, Runner, random_ids
from tests.parity.reference import load_reference, load_tensors, run_f32

LENGTH, ORIGINAL_LEN = 300, 80  # beyond what the network "was trained for"
SHAPE = {"partial_rotary_factor": 0.5, "max_position_embeddings": ORIGINAL_LEN}


def config_of(factor):
    plain = small_config(**SHAPE)
    plain["text_config"]["rope_parameters"]["rope_theta"] = 100.0  # so that some frequencies are kept, some slowed
    return plain if factor is None else yarn_config(plain, factor)


def logits_of(folder):
    """A prompt, then decode rows."""
    runner = Runner(folder, NativeBackend(2), max_len=LENGTH, num_slots=1)
    ids = random_ids(LENGTH)
    parts = [runner.one(Piece(0, ids[:-4])).logits]
    parts += [runner.one(Piece(0, ids[i : i + 1], i, Role.DECODE)).logits for i in range(LENGTH - 4, LENGTH)]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("yarn")
    return {f: write_checkpoint(base / str(f), config_of(f), SEED) for f in (None, 2.0, 4.0)}


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_logits_with_yarn(folders, factor):
    library = run_f32(load_reference(config_of(factor), load_tensors(folders[factor])), random_ids(LENGTH)).logits
    # Without the attention factor the rows would be 0.07 away (factor 2).
    assert relative_error(logits_of(folders[factor]), library).worst_row < 1e-4
    for other in folders.keys() - {factor}:
        assert relative_error(logits_of(folders[other]), library).total > 0.03
