"""The sizes that predictions reckon with are the released ones."""

import math

import pytest

from qwick.bench.sizes import SIZES, size_config
from qwick.model.config import parse_config
from qwick.model.names import tensor_specs
from tests.checkpoints import RELEASED

PUBLISHED = {  # parameters of the text network (the head once if tied) and of the MTP block
    "qwen3.5:0.8b": (752_393_024, 20_452_864),
    "qwen3.5:2b": (1_881_825_088, 60_828_160),
    "qwen3.5:4b": (4_205_751_296, 120_599_552),
    "qwen3.5:9b": (8_953_803_264, 243_290_624),
}


def test_all_four_are_there():
    assert set(SIZES) == set(PUBLISHED)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_add_up_to_the_published_counts(name):
    text = mtp = 0
    for spec in tensor_specs(size_config(name)):
        count = math.prod(spec.shape)
        mtp += count if spec.name.startswith("mtp.") else 0
        text += 0 if spec.name.startswith("mtp.") else count
    assert (text, mtp) == PUBLISHED[name]


@pytest.mark.parametrize("name", SIZES)
def test_they_are_the_networks_of_the_released_files(name):
    assert size_config(name) == parse_config(RELEASED[name.removeprefix("qwen3.5:")])
