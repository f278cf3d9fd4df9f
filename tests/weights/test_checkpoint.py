"""A folder opens as what it is, or says what is missing and what to do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwick.errors import CheckpointError, UsageError
from qwick.weights.checkpoint import open_checkpoint
from tests.checkpoints import bf16_bits, small_config, write_checkpoint
from tests.weights.raw_safetensors import of_tensors

INDEX = "model.safetensors.index.json"


def one(name: str, value: float = 1) -> bytes:
    """A file of one F32 tensor [2]."""
    return of_tensors({name: ("F32", np.full(2, value, np.float32))})


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 16}, "weight_map": weight_map}))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards of a tensor each."""
    (tmp_path / "1.safetensors").write_bytes(one("a", 1))
    (tmp_path / "2.safetensors").write_bytes(one("b", 2))
    write_index(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    return tmp_path


@pytest.mark.parametrize("name", ["model.safetensors", "any.safetensors"])
def test_opens_a_folder_with_one_file_and_the_file_itself(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(one("a", 3))
    for path in (tmp_path, tmp_path / name):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.tensors["a"].shape == (2,)
            assert checkpoint.read("a", 1, 2).tolist() == [3]


def test_shards_read_as_one(sharded: Path) -> None:
    with open_checkpoint(sharded) as checkpoint:
        assert set(checkpoint.tensors) == {"a", "b"}
        assert [checkpoint.read(name, 0, 1).item() for name in "ab"] == [1, 2]
        with pytest.raises(KeyError):
            checkpoint.read("c", 0, 1)
    checkpoint.close()


def test_any_number_of_shards_holds_the_same_tensors(tmp_path: Path) -> None:
    config = small_config(tie_word_embeddings=False)
    whole = open_checkpoint(write_checkpoint(tmp_path / "whole", config, seed=5))
    with open_checkpoint(write_checkpoint(tmp_path / "parts", config, seed=5, dtype="BF16", shards=7)) as parts:
        assert len(list((tmp_path / "parts").glob("*.safetensors"))) == 7
        assert parts.tensors.keys() == whole.tensors.keys()
        for name, info in parts.tensors.items():
            values = whole.read(name, 0, info.shape[0])
            wanted = bf16_bits(values) if info.dtype == "BF16" else values
            np.testing.assert_array_equal(parts.read(name, 0, info.shape[0]), wanted)
    whole.close()


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"2\.safetensors of 2 shards missing; download the rest"):
        open_checkpoint(sharded)


def test_a_broken_shard_is_named(sharded: Path) -> None:
    (sharded / "2.safetensors").write_bytes(one("b")[:-1])
    with pytest.raises(CheckpointError, match=r"2\.safetensors: truncated"):
        open_checkpoint(sharded)


def test_a_tensor_that_its_shard_lacks_is_named(sharded: Path) -> None:
    for weight_map in ({"a": "1.safetensors", "c": "2.safetensors"}, {"a": "2.safetensors", "b": "1.safetensors"}):
        write_index(sharded, weight_map)
        with pytest.raises(CheckpointError, match=r"\.safetensors: lacks tensor '[ac]', which model"):
            open_checkpoint(sharded)


def test_a_tensor_in_two_shards_is_named(sharded: Path) -> None:
    (sharded / "2.safetensors").write_bytes(of_tensors({n: ("F32", np.zeros(1, np.float32)) for n in ("a", "b")}))
    with pytest.raises(CheckpointError, match=r"2\.safetensors: tensor 'a' is in 1\.safetensors too"):
        open_checkpoint(sharded)


NO_SHARDS = [
    "../1.safetensors", "/1.safetensors", "x/1.safetensors", "..", "", "1.bin", "a\0.safetensors", 7, None, ["1"],
    "a" * 9999 + ".safetensors",
]  # fmt: skip


@pytest.mark.parametrize("shard", NO_SHARDS, ids=range(len(NO_SHARDS)))
def test_an_index_cannot_lead_out_of_its_folder(sharded: Path, shard: object) -> None:
    write_index(sharded, {"a": shard})
    with pytest.raises(CheckpointError, match=r"index\.json: 'a' is said to be in"):
        open_checkpoint(sharded)


@pytest.mark.parametrize("weight_map", [None, {}, [], 3, "x"])
def test_an_index_without_a_map_is_refused(sharded: Path, weight_map: object) -> None:
    write_index(sharded, weight_map)
    with pytest.raises(CheckpointError, match="has no weight_map"):
        open_checkpoint(sharded)


def test_an_index_of_very_many_files_is_refused(sharded: Path) -> None:
    write_index(sharded, {str(i): f"{i}.safetensors" for i in range(1001)})
    with pytest.raises(CheckpointError, match="names 1001 files"):
        open_checkpoint(sharded)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "no safetensors file; is this the model's folder"),
        (["config.json"], "no safetensors file"),
        (["pytorch_model.bin"], "only pickled weights.*convert them with save_pretrained"),
        (["model-Q4_K_M.gguf"], "holds GGUF files .*give one of them"),
        (["adapter_model.safetensors"], "only a LoRA adapter"),
        (["a.safetensors", "b.safetensors"], r"2 safetensors files but no .*download model\.safetensors\.index\.json"),
    ],
)
def test_says_what_a_folder_holds_instead(tmp_path: Path, names: list[str], reason: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=reason):
        open_checkpoint(tmp_path)


def test_a_path_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", Path("a\0b"), Path("x" * 9999)):
        with pytest.raises(UsageError, match="no such file or folder"):
            open_checkpoint(path)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(CheckpointError, match="too short for a GGUF file"):
        open_checkpoint(tmp_path / "model.gguf")
    (tmp_path / "model.bin").touch()
    with pytest.raises(CheckpointError, match=r"not a folder, a \.gguf or a"):
        open_checkpoint(tmp_path / "model.bin")
