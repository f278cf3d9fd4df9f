"""Every released size by config alone: parsed, and its tensors add up to the published parameter counts."""

import math

import pytest

from qwick.model.config import parse_config
from qwick.model.names import file_names, tensor_specs
from tests.checkpoints import RELEASED, planned_tensors, text_only

# Text network with the head once if tied, MTP block, number of text and MTP tensors: the facts page, sections 1 and 2.
PUBLISHED = {
    "0.8b": (752_393_024, 20_452_864, 320, 15),
    "2b": (1_881_825_088, 60_828_160, 320, 15),
    "4b": (4_205_751_296, 120_599_552, 426, 15),
    "9b": (8_953_803_264, 243_290_624, 427, 15),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_tensors_add_up_to_the_published_counts(size):
    specs = list(tensor_specs(parse_config(RELEASED[size])))
    mtp = [spec for spec in specs if spec.name.startswith("mtp.")]
    text = [spec for spec in specs if not spec.name.startswith("mtp.")]
    counts = tuple(sum(math.prod(spec.shape) for spec in part) for part in (text, mtp))
    assert (*counts, len(text), len(mtp)) == PUBLISHED[size]


@pytest.mark.parametrize("size", RELEASED)
def test_every_tensor_of_the_file_has_its_place_and_shape(size):
    specs = list(tensor_specs(parse_config(RELEASED[size])))
    shapes = {t.name: t.shape for t in planned_tensors(RELEASED[size]["text_config"], 0, "model.language_model.")}
    files = file_names(specs, shapes)
    assert sorted(files.values()) == sorted(shapes)
    assert all(shapes[files[spec.name]] == spec.shape for spec in specs)


@pytest.mark.parametrize("size", RELEASED)
def test_a_text_only_config_is_the_same_network(size):
    assert parse_config(text_only(RELEASED[size])) == parse_config(RELEASED[size])


def test_the_27b_has_three_value_heads_to_a_key_head():
    heads = parse_config(RELEASED["27b"]).delta
    assert heads.num_v == 3 * heads.num_k
