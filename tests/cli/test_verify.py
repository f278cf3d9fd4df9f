"""`qwick verify`: a report for people, one for programs, and an exit code of its own."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qwick.cli.main import commands
from qwick.verify import run
from tests.checkpoints import small_config, write_checkpoint
from tests.small_model import write_small_model
from tests.text.tokenizer_folder import write_folder

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit of the weights in memory is wrong."""
    good = run.open_model

    def opened(*arguments, **options):
        model = good(*arguments, **options)
        model.weight("layers.2.mlp.up_proj").view()[0] ^= 1
        return model

    monkeypatch.setattr(run, "open_model", opened)


def test_a_good_model_passes(folder: str) -> None:
    result = RUNNER.invoke(commands, ["verify", folder, "--threads", "2"])
    assert result.exit_code == 0, result.output
    for group in ("text", "memory equals the file", "kernels", "same bits", "parity with transformers"):
        assert group in result.stdout
    assert " 0 failed" in result.stdout


@pytest.mark.usefixtures("_broken")
def test_a_wrong_bit_is_told_with_exit_code_8(folder: str) -> None:
    result = RUNNER.invoke(commands, ["verify", folder])
    assert result.exit_code == 8
    (line,) = [line for line in result.stdout.splitlines() if "FAILED" in line]
    assert "layers.2.mlp.up_proj row 0" in line
    assert result.stderr.startswith("qwick: error: 1 of ")


@pytest.mark.usefixtures("_broken")
def test_json_says_the_same(folder: str) -> None:
    result = RUNNER.invoke(commands, ["verify", folder, "--json"])
    assert result.exit_code == 8
    report = json.loads(result.stdout)
    assert report["model"] == str(Path(folder))
    assert report["counts"]["FAILED"] == 1
    (red,) = [check for check in report["checks"] if check["outcome"] == "FAILED"]
    assert red["group"] == "memory equals the file"
    kernels = [check for check in report["checks"] if check["group"] == "kernels"]
    assert kernels
    assert all(0 < check["figure"] <= check["bound"] for check in kernels)


def test_a_gguf_file_of_several_formats_passes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", small_config(hidden_size=256, intermediate_size=256), seed=3)
    write_folder(tmp_path / "model")
    made = str(tmp_path / "made.gguf")
    assert RUNNER.invoke(commands, ["convert", str(tmp_path / "model"), made, "--format", "q4_k_m"]).exit_code == 0
    result = RUNNER.invoke(commands, ["verify", made, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    memory = {check["name"] for check in report["checks"] if check["group"] == "memory equals the file"}
    assert {"u4k", "u6k", "vectors"} <= memory
    (parity,) = [check for check in report["checks"] if check["group"] == "parity with transformers"]
    assert parity["outcome"] == "skipped"


def test_what_cannot_be_opened_is_not_a_failed_check(tmp_path: Path, folder: str) -> None:
    assert RUNNER.invoke(commands, ["verify", str(tmp_path / "nothing")]).exit_code == 2
    assert RUNNER.invoke(commands, ["verify", folder, "--threads", "0"]).exit_code == 2
