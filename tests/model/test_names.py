"""Names and orders: what is missing, unknown or misshapen is named; saving is the inverse of loading."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.errors import CheckpointError
from qwick.model.config import parse_config
from qwick.model.load import load_network
from qwick.model.names import PREFIXES, file_names, tensor_specs, trunk_prefix, v_head_order
from qwick.model.source import Source
from qwick.ops.contract import DeltaHeads
from qwick.ops.torch import TorchBackend
from tests.checkpoints import planned_tensors, small_config
from tests.model.memory import MemoryCheckpoint

CONFIG = small_config(linear_num_value_heads=6, linear_value_head_dim=48)
PARSED = parse_config(CONFIG)
SPECS = list(tensor_specs(PARSED))
RELEASED_PREFIX = "model.language_model."


def tensors(prefix=RELEASED_PREFIX, dtype="F32"):
    planned = planned_tensors(CONFIG["text_config"], 3, prefix)
    return {t.name: np.concatenate(list(t.chunks(3))).reshape(t.shape) for t in planned}


def load(changed):
    return load_network(Source.of_folder(MemoryCheckpoint(changed), PARSED), TorchBackend())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_to_file_undoes_to_canonical(spec):
    values = np.random.default_rng(0).uniform(-3, 1, spec.shape).astype(np.float32)
    back = spec.to_file(spec.to_canonical(values))
    assert back.shape == values.shape
    # 1 + w and exp round once.
    assert np.abs(back - values).max() <= 4 * 2.0**-22
    if spec.change.value == "none":
        assert np.array_equal(back, values)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_windows_read_what_to_canonical_makes(spec, monkeypatch):
    """A matrix read in stretches of a few rows is the matrix permuted at once."""
    monkeypatch.setattr("qwick.model.source.WINDOW_BYTES", 1000)
    made = tensors()
    network = load(made)
    raw = made[file_names(SPECS, made)[spec.name]]
    loaded = network.weights[spec.name].numpy()
    assert np.array_equal(loaded, spec.to_canonical(raw).reshape(loaded.shape))


@given(num_k=st.integers(1, 8), ratio=st.integers(1, 4))
def test_v_heads_go_from_grouped_to_tiled(num_k, ratio):
    order = v_head_order(DeltaHeads(num_k, num_k * ratio, 16, 16))
    assert sorted(order) == list(range(num_k * ratio))
    # In the file, v head i belongs to k head i // ratio; in memory, v head j to k head j mod num_k.
    assert all(order[j] // ratio == j % num_k for j in range(num_k * ratio))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_finds_the_prefix(prefix):
    names = tensors(prefix)
    assert trunk_prefix(names) == prefix
    assert set(file_names(SPECS, names).values()) == set(names)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_names_a_missing_tensor(spec):
    made = tensors()
    name = file_names(SPECS, made)[spec.name]
    del made[name]
    if spec.name == "embed_tokens":
        name = "embed_tokens.weight"
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(made)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_names_a_misshapen_tensor(spec):
    made = tensors()
    name = file_names(SPECS, made)[spec.name]
    made[name] = np.zeros((*spec.shape[:-1], spec.shape[-1] + 1), np.float32)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as failure:
        load(made)
    assert str(list(spec.shape)) in str(failure.value)


@pytest.mark.parametrize(
    "name",
    [
        "model.language_model.layers.4.input_layernorm.weight",
        "model.language_model.layers.0.mlp.gate_proj.weight_scale",
        "model.language_model.layers.0.self_attn.q_proj.weight",
        "mtp.layers.1.mlp.up_proj.weight",
        "stray",
    ],
)
def test_names_an_unmapped_tensor(name):
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(tensors() | {name: np.zeros(4, np.float32)})


def test_counts_many_missing_tensors():
    made = {n: x for n, x in tensors().items() if ".layers.1." not in n}
    with pytest.raises(CheckpointError, match=r"14 tensors are missing.*and 8 more"):
        load(made)


def test_refuses_a_strange_checkpoint():
    with pytest.raises(CheckpointError, match=r"no embed_tokens\.weight"):
        load({"transformer.wte.weight": np.zeros((512, 64), np.float32)})


def test_refuses_a_dtype_it_cannot_read():
    made = tensors()
    checkpoint = MemoryCheckpoint(made, dtypes={"model.language_model.norm.weight": "F8_E4M3"})
    with pytest.raises(CheckpointError, match=r"norm\.weight has dtype F8_E4M3.*F32, BF16, F16"):
        Source.of_folder(checkpoint, PARSED)
