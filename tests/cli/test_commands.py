"""`inspect`, `doctor`, `--version`, start-up, and what a terminal must be spared."""

import json
import re
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
from qwick.thread_choice import Machine, Record
from tests.small_model import write_small_model

RUNNER = CliRunner()
GGUF = str(Path(__file__).parent.parent / "golden" / "every_type.gguf")


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
    rows = summary["tensors"]
    assert summary["config"]["hidden_size"] == config.hidden_size
    assert summary["parameters"] == sum(f["parameters"] for f in summary["families"].values())
    assert summary["memory_bytes"] == sum(row["memory_bytes"] for row in rows)
    assert summary["file_bytes"] == sum(row["file_bytes"] for row in rows) == summary["parameters"] * 4  # F32
    assert summary["kv_bytes_per_token"] == 2 * 2 * 2 * 64 * 2  # (1 + MTP) layers, k and v, heads, dims, f16


def test_what_a_token_costs_counts_what_decoding_reads(folder: str) -> None:
    def at(depth: int) -> dict[str, int]:
        return json.loads(output("inspect", folder, "--json", "--ctx-size", str(depth)))["token_cost"]

    near, far = at(0), at(1000)
    config = load_config(Path(folder))
    rows = json.loads(output("inspect", folder, "--json", "--tensors"))["tensors"]
    trunk = [row for row in rows if not row["name"].startswith("mtp.")]
    trunk = [row for row in trunk if config.tie_word_embeddings or row["name"] != "embed_tokens"]
    assert near["weight_bytes"] == far["weight_bytes"] == sum(row["memory_bytes"] for row in trunk)
    assert near["kv_bytes"] == 0
    assert far["kv_bytes"] == 1000 * 2 * 2 * 64 * 2  # one attention layer decodes: k and v, heads, dims, f16
    delta = config.delta
    state = delta.num_v * delta.k_dim * delta.v_dim + 3 * delta.channels  # elements of one layer
    assert near["state_bytes"] == far["state_bytes"] == 2 * 3 * state * 4
    attended = 1000 * 2 * config.attention.num_q * config.attention.head_dim
    assert far["multiply_adds"] - near["multiply_adds"] == attended
    assert far["total_bytes"] == far["weight_bytes"] + far["state_bytes"] + far["kv_bytes"]


def test_inspect_is_readable(folder: str) -> None:
    text = output("inspect", folder)
    for word in ("3 linear, 1 attention", "MTP", "parameters", "KV cache", "recurrent state", "f32", "multiply-adds"):
        assert word in text
    assert "in_proj_qkv" not in text
    assert "in_proj_qkv" in output("inspect", folder, "--tensors")


@pytest.mark.parametrize("depth", ["-1", "8193"])
def test_inspect_knows_the_longest_context(folder: str, depth: str) -> None:
    result = RUNNER.invoke(commands, ["inspect", folder, "--ctx-size", depth])
    assert result.exit_code == 2
    assert "8,192" in result.stderr


def test_a_gguf_file_is_inspected_as_a_folder_is() -> None:
    summary = json.loads(output("inspect", GGUF, "--json", "--tensors"))
    dtypes = {row["dtype"] for row in summary["tensors"]}
    assert {"Q4_K", "Q6_K", "Q8_0", "IQ4_XS"} <= dtypes
    assert {"u4k", "u6k", "i8", "t4k"} <= set(summary["families"])
    assert summary["file_bytes"] == sum(row["file_bytes"] for row in summary["tensors"])
    assert "Q4_K" in output("inspect", GGUF, "--tensors")
    card = json.loads(output("show", GGUF, "--json"))
    assert card["files"] == {"every_type.gguf": Path(GGUF).stat().st_size}
    assert card["parameters"] == summary["parameters"]


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
    names = {part for kernel in machine.kernel_choice for part in kernel.split(".")}
    assert names <= set(re.findall(r"\w+", text))


@pytest.mark.skipif(not (pocket.FOLDER / "config.json").exists(), reason="this checkout has no embedded model yet")
def test_doctor_shows_how_many_threads_were_found_fastest() -> None:
    Record("my\x1b model", "key", Machine.here(), 1, None).save()
    text = output("doctor")
    assert "1 for answers" in text
    assert "\x1b" not in text
    found = json.loads(output("doctor", "--json"))["tuned_threads"]
    assert [row["threads"] for row in found if row["model_key"] == "key"] == [1]


@pytest.mark.skipif(not (pocket.FOLDER / "config.json").exists(), reason="this checkout has no embedded model yet")
def test_doctor_shows_and_clears_the_pack_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_PACKS", str(tmp_path))
    assert "pack cache        0 models" in output("doctor")
    for _ in range(2):
        assert output("run", "pocket", "hi", "--max-tokens", "1", "--format", "q8_0", "--pack-cache")
    text = output("doctor")
    assert "pack cache        1 model, " in text
    assert "unfinished" not in text
    assert "model.safetensors (q8_0)" in " ".join(text.split())  # of a long path it stands on a line of its own
    found = json.loads(output("doctor", "--json"))["pack_cache"]
    (pack,) = tmp_path.iterdir()
    assert found["folder"] == str(tmp_path)
    assert [(entry["path"], entry["num_bytes"]) for entry in found["entries"]] == [(str(pack), pack.stat().st_size)]
    (half := pack.with_suffix(".part")).write_text("")
    assert "1 model, " in (text := " ".join(output("doctor").split()))
    assert "1 file unfinished or damaged" in text
    assert output("doctor", "--clear-pack-cache").startswith("deleted 2 files, ")
    assert not half.exists()
    assert list(tmp_path.iterdir()) == []
    assert json.loads(output("doctor", "--clear-pack-cache", "--json"))["deleted"] == []


@pytest.mark.skipif(not (pocket.FOLDER / "config.json").exists(), reason="this checkout has no embedded model yet")
def test_a_pack_cache_that_cannot_be_is_one_row_of_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_PACKS", "/etc/passwd")
    text = " ".join(output("doctor").split())
    assert "pack cache cannot read /etc/passwd (Not a directory); set QWICK_PACKS to a folder" in text
    assert "the embedded model answers" in text
    assert json.loads(output("doctor", "--json"))["pack_cache"].keys() == {"error"}


@pytest.mark.skipif(not (pocket.FOLDER / "config.json").exists(), reason="this checkout has no embedded model yet")
def test_doctor_for_a_bug_report() -> None:
    found = json.loads(output("doctor", "--json"))
    machine = describe_machine()
    assert found["isa"] == machine.isa
    assert found["kernel_choice"] == machine.kernel_choice
    assert found["versions"]["qwick"] == qwick.__version__
    assert "pocket" in found["answer"]


def test_an_impossible_instruction_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_ISA", "abacus")
    result = RUNNER.invoke(commands, ["doctor"])
    assert result.exit_code == 7
    assert "abacus" in result.stderr


def test_help_names_every_option_of_run() -> None:
    # Wide, so that no option is cut.
    result = RUNNER.invoke(commands, ["run", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    sampling = (
        "max-tokens",
        "temperature",
        "top-k",
        "top-p",
        "min-p",
        "presence-penalty",
        "logit-bias",
        "seed",
        "stop",
    )
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
