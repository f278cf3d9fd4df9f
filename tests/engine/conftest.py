"""One small hard-random model for all tests of the engine."""

from functools import cache

import pytest
import torch

from qwick.formats import Q8_0
from qwick.model.load import load_network
from qwick.model.model import Model, open_model
from qwick.model.source import open_source
from qwick.ops.torch import TorchBackend
from tests.checkpoints import write_checkpoint
from tests.engine.asking import CONFIG

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("engine"), CONFIG, 5)


@pytest.fixture(scope="session")
def models(folder):
    """torch in f64 (nothing is near a tie that rounding could turn), native in f32 and in q8_0."""

    @cache
    def make(name):
        if name != "torch":
            return open_model(folder, format=Q8_0 if name == "q8_0" else None, threads=2, threads_batch=2)
        backend = TorchBackend(torch.float64)
        with open_source(folder) as source:
            return Model(load_network(source, backend), backend)

    return make
