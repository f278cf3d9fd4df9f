"""`inspect`, `doctor`, `--version`, start-up, and what a terminal must be spared."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import qwick
from qwick import pocket
from qwick.cli import terminal
from qwick.cli.main import commands
from qwick.model.config import load_config
from qwick.ops.native import describe_machine
from tests.small_model import write_small_model

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_model(tmp_path_factory.mktemp("model")))


def output(*arguments: str) -> str:
    result = RUNNER.invoke(commands, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_version() -> None:
    assert output("--version") == f"qwick {qwick.__version__}\n"


def test_inspect_counts_what_the_folder_holds(folder: str) -> None:
    summary = json.loads(output("inspect", folder, "--json", "--tensors"))
    config = load_config(Path(folder))
    assert summary["config"]["hidden_size"] == config.hidden_size
    assert summary["parameters"] == sum(f["parameters"] for f in summary["families"].values())
    assert summary["memory_bytes"] == sum(row["bytes"] for row in summary["tensors"])
    assert summary["file_bytes"] >= summary["parameters"] * 4  # F32 in this file
    assert summary["kv_bytes_per_token"] == 2 * 2 * 2 * 64 * 2  # (1 + MTP) layers, k and v, heads, dims, f16


def test_inspect_is_readable(folder: str) -> None:
    text = output("inspect", folder)
    for word in ("3 linear, 1 attention", "MTP", "parameters", "KV cache", "recurrent state", "f32"):
        assert word in text
    assert "in_proj_qkv" not in text
    assert "in_proj_qkv" in output("inspect", folder, "--tensors")


@pytest.mark.skipif(not (pocket.FOLDER / "config.json").exists(), reason="this checkout has no embedded model yet")
def test_doctor_tells_what_was_chosen() -> None:
    text = output("doctor")
    machine = describe_machine()
    for word in (
        machine.isa,
        str(machine.threads),
        "memory",
        "huge pages",
        qwick.__version__,
        "the embedded model answers",
    ):
        assert word in text
    assert all(kernel in text for kernel in machine.kernel_choice)


def test_an_impossible_instruction_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_ISA", "abacus")
    result = RUNNER.invoke(commands, ["doctor"])
    assert result.exit_code == 7
    assert "abacus" in result.stderr


def test_help_names_every_option_of_run() -> None:
    # Wide, so that no option is cut.
    result = RUNNER.invoke(commands, ["run", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    sampling = ("max-tokens", "temperature", "top-k", "top-p", "min-p", "seed", "stop")
    machine = ("threads", "threads-batch", "format", "ctx-size", "kv-format", "mlock")
    for option in (*sampling, *machine, "think", "no-think", "raw", "stats"):
        assert f"--{option}" in result.stdout


def test_starting_loads_nothing_heavy() -> None:
    heavy = "numpy torch tokenizers jinja2 rich qwick.llm qwick._kernels"
    code = f"import sys, qwick.cli.main; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_running_never_imports_torch(folder: str) -> None:
    code = (
        "import sys; from qwick.cli.main import commands\n"
        f"commands(['run', {folder!r}, 'hi', '--max-tokens', '1'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert terminal.harmless("a\x1b[2Jb\n\tc\x07\x9b1m") == "a[2Jb\n\tc1m"
    assert terminal.one_line("a\nb\x1b\ud800") == r"a\nb\x1b\ud800"


def test_no_bar_without_a_terminal() -> None:
    with terminal.loading_bar("x") as progress:
        assert progress is None
