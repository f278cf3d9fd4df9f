"""Checkpoints and oracles, made once for all parity tests."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwick.ops.torch import TorchBackend
from tests.checkpoints import Config, write_checkpoint
from tests.parity.compare import Error, relative_error
from tests.parity.llama_cpp import Library, installed_library
from tests.parity.network import CONFIGS, SEED, Piece, Rows, Runner, random_ids
from tests.parity.reference import load_reference, load_tensors, run_f32, run_f32_cached

torch.set_num_threads(1)  # tiny operands: a second thread only waits, long on a busy machine

NUM_DECODED = 6
LENGTHS = (1, 2, 63, 64, 65, 300)


@dataclass(frozen=True)
class Case:
    """A small network's folder, a sequence of tokens, and the f64 oracle's rows for it."""

    name: str
    config: Config
    folder: Path
    tensors: dict[str, Tensor]
    ids: NDArray
    oracle: Rows
    library_error: Callable[[int], tuple[Error, Error]]  # prompt length -> error of logits and of hidden state

    def tolerance(self, prompt_len: int) -> tuple[Error, Error]:
        logits, hidden = self.library_error(prompt_len)
        return logits.tolerance(), hidden.tolerance()


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """By name of the config; each is made once."""

    @cache
    def make(name: str) -> Case:
        config = CONFIGS[name]
        folder = write_checkpoint(tmp_path_factory.mktemp("parity") / name, config, SEED)
        tensors = load_tensors(folder)
        ids = random_ids(max(LENGTHS) + NUM_DECODED)
        # Causal: the rows of one long run are the rows of every shorter one.
        oracle = Runner(folder, TorchBackend(torch.float64)).one(Piece(0, ids))
        model = load_reference(config, tensors)

        @cache
        def library_error(prompt_len: int) -> tuple[Error, Error]:
            count = prompt_len + NUM_DECODED
            whole = run_f32(model, ids[:count])
            stepwise = run_f32_cached(model, ids[:count], prompt_len)
            errors = [relative_error(x, oracle.logits[:count]) for x in (whole.logits, stepwise)]
            logits = Error(max(e.total for e in errors), max(e.worst_row for e in errors))
            return logits, relative_error(whole.hidden, oracle.hidden[:count])

        return Case(name, config, folder, tensors, ids, oracle, library_error)

    return make


@pytest.fixture(scope="session")
def library() -> Library:
    path = installed_library()
    if path is None:
        pytest.skip("no library of llama.cpp: install xllamacpp, or set QWICK_LLAMA_LIBRARY to a libllama.so")
    return Library(path)
