"""`qwick convert` on the command line."""

import re
from pathlib import Path

import pytest
from gguf import GGUFReader
from typer.testing import CliRunner

from qwick.cli.main import commands
from qwick.cli.tables import size_text
from tests.small_model import write_small_model

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_model(tmp_path_factory.mktemp("models") / "small"))


def run(*arguments: str) -> tuple[int, str, str]:
    result = RUNNER.invoke(commands, ["convert", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_it_says_what_came_out(folder: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    code, out, err = run(folder, str(path), "--format", "q8_0", "--threads", "2")
    assert (code, err) == (0, "")
    sizes = r"(.*): ([\d.]+ [KM]iB) from [\d.]+ MiB, (\d+\.\d\d) bits per weight"
    pattern = sizes + r"; tensors: 30 f32, 40 q8_0; \d+\.\d s\n"
    name, size, bits = re.fullmatch(pattern, out).groups()  # type: ignore[union-attr]
    assert name == str(path)
    assert size == size_text(path.stat().st_size)
    assert 8.5 < float(bits) < 12
    assert len(GGUFReader(path).tensors) == 70


def test_a_plain_name_goes_to_the_store(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_MODELS", str(tmp_path / "store"))
    code, out, _ = run(folder, "mine", "--format", "BF16")
    assert code == 0
    assert out.startswith(str(tmp_path / "store" / "mine.gguf"))
    assert (tmp_path / "store" / "mine.gguf").is_file()
    assert run(folder, "mine", "--format", "BF16", "--force")[0] == 0
    code, _, err = run(folder, "mine")
    assert code == 2
    assert "has a model 'mine' already" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["there.gguf"], "exists; give another name, or --force"),
        (["x.gguf", "--format", "q3_k"], "unknown format 'q3_k'; known: F32, F16"),
        (["no/x.gguf"], "there is no folder"),
        (["some/where"], "does not end in .gguf"),
        (["x.gguf", "--threads", "0"], "threads"),
    ],
)
def test_mistakes_cost_one_line(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.gguf").write_bytes(b"precious")
    code, out, err = run(folder, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.gguf"]
    assert (tmp_path / "there.gguf").read_bytes() == b"precious"


def test_force_replaces(folder: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"old")
    assert run(folder, str(path), "--format", "F16", "--force")[0] == 0
    assert path.read_bytes()[:4] == b"GGUF"
