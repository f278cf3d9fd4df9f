"""`list`, `show` and `rm`: what they tell, on a terminal and in a pipe, and that `rm` keeps to the store."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
from typer.testing import CliRunner, Result

from qwick.cli.main import commands
from qwick.model.model import open_model
from tests.checkpoints import small_config
from tests.gguf_model import add_tokenizer, everything, write_gguf
from tests.small_model import write_small_model

RUNNER = CliRunner()
QWICK = [sys.executable, "-m", "qwick"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture
def models(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a model, a link to one, and something broken."""
    folder = tmp_path / "models"
    shutil.copytree(small, folder / "small")
    (folder / "linked").symlink_to(small)
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{")
    monkeypatch.setenv("QWICK_MODELS", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def qwick(*arguments: str, answer: str | None = None) -> Result:
    return RUNNER.invoke(commands, arguments, input=answer, prog_name="qwick")


def on_a_terminal(*arguments: str, keys: bytes = b"") -> tuple[int, str]:
    """Exit code and screen of qwick on a terminal of its own, where `keys` are typed."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*QWICK, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | {"TERM": "dumb"}
    )
    os.close(terminal)
    os.write(controller, keys)
    shown = b""
    try:
        while part := os.read(controller, 1 << 16):
            shown += part
    except OSError:  # EIO: the other side is closed
        pass
    os.close(controller)
    return process.wait(timeout=60), shown.decode().replace("\r\n", "\n")


def test_a_pipe_gets_tabs_and_exact_numbers(models: Path) -> None:
    lines = [line.split("\t") for line in qwick("list").stdout.splitlines()]
    assert [line[0] for line in lines] == ["broken", "linked", "small"]
    broken, linked, small = lines
    assert broken[2:4] == ["", ""]
    assert small[1:4] == linked[1:4]
    assert int(small[1]) == sum(file.stat().st_size for file in (models / "small").iterdir())
    assert small[2] == "F32"
    assert small[4].endswith("+00:00")


def test_a_terminal_gets_a_table(models: Path) -> None:
    code, shown = on_a_terminal("list")
    head, *rows = shown.splitlines()
    assert code == 0
    assert head.split() == ["NAME", "SIZE", "FORMAT", "PARAMETERS", "MODIFIED"]
    assert all(row[head.index("SIZE") - 2 :].startswith("  ") for row in rows), "columns are aligned"
    assert "unreadable" in rows[0]
    assert rows[2].startswith("small ")
    assert rows[2].endswith("just now")


def test_json_says_what_is_wrong(models: Path) -> None:
    broken, linked, small = json.loads(qwick("list", "--json").stdout)
    assert "config.json" in broken["error"]
    assert small["error"] is None
    assert small["parameters"] == linked["parameters"] > 0
    assert small["paths"] == [str(models / "small")]


def test_an_empty_store_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_MODELS", str(tmp_path / "none"))
    result = qwick("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert str(tmp_path / "none") in result.stderr
    assert json.loads(qwick("list", "--json").stdout) == []


def test_a_model_of_the_store_runs_by_its_name(models: Path) -> None:
    done = subprocess.run(
        [*QWICK, "run", "small", "hi", "--max-tokens", "2"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout


def test_a_gguf_file_is_a_model_as_well(models: Path, small: Path) -> None:
    raw = json.loads((small / "tokenizer.json").read_text())

    def add_keys(writer: gguf.GGUFWriter) -> None:
        add_tokenizer(writer, raw, 512)
        writer.add_float32("general.sampling.temp", 0.5)
        writer.add_file_type(7)

    kind = everything(gguf.GGMLQuantizationType.Q8_0)
    write_gguf(models / "mine-Q8_0.gguf", small_config(), 1, kind, metadata=add_keys)
    assert [line.split("\t")[2] for line in qwick("list").stdout.splitlines()] == ["", "F32", "Q8_0", "F32"]
    card = json.loads(qwick("show", "mine-Q8_0", "--json").stdout)
    assert card["format"] == "Q8_0"
    assert card["sampling"]["temperature"] == 0.5
    assert list(card["files"]) == ["mine-Q8_0.gguf"]
    answers = [qwick("run", name, "hi", "--max-tokens", "3", "--seed", "1") for name in ("mine-Q8_0", "mine-Q8_0.gguf")]
    assert answers[0].exit_code == answers[1].exit_code == 0
    assert answers[0].stdout == answers[1].stdout
    assert qwick("rm", "mine-Q8_0.gguf", "-y").exit_code == 0
    assert not (models / "mine-Q8_0.gguf").exists()


def test_show_is_a_card(models: Path) -> None:
    text = qwick("show", "small").stdout
    for word in ("Qwen3.5", "MTP", "F32", "8,192 tokens", "thinking", "temperature", "top_k", "model.safetensors"):
        assert word in text
    card = json.loads(qwick("show", "small", "--json").stdout)
    assert card["format"] == "F32"
    assert card["context_len"] == 8192
    assert card["can_think"] is False
    assert set(card["files"]) == {file.name for file in (models / "small").iterdir()}
    assert card["sampling"]["top_k"] == 20


def test_show_knows_the_embedded_model() -> None:
    assert "Qwen3.5" in qwick("show", "pocket").stdout


@pytest.mark.parametrize("name", ["smal", "no-such", "../models/none", "a\x1b[2Jb"])
def test_an_unknown_model_is_code_2(models: Path, name: str) -> None:
    for command in ("show", "rm", "inspect"):
        result = qwick(command, name)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert "\x1b" not in result.stderr


def test_a_damaged_model_can_be_removed_but_not_shown(models: Path) -> None:
    assert qwick("show", "broken").exit_code == 3
    assert qwick("rm", "broken", "--yes").exit_code == 0
    assert not (models / "broken").exists()


def test_rm_asks(models: Path) -> None:
    code, shown = on_a_terminal("rm", "small", keys=b"n\n")
    assert code == 0
    assert "nothing was deleted" in shown
    assert (models / "small").exists()
    code, shown = on_a_terminal("rm", "small", keys=b"\x04")  # Ctrl-D
    assert code == 130
    assert (models / "small").exists()
    code, shown = on_a_terminal("rm", "small", keys=b"y\n")
    assert code == 0
    assert f"deleted {models / 'small'}" in shown
    assert not (models / "small").exists()


def test_rm_does_nothing_when_nobody_can_be_asked(models: Path) -> None:
    result = qwick("rm", "small", answer="y\n")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert (models / "small").exists()


def test_rm_deletes_what_the_pack_cache_has_of_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWICK_PACKS", str(tmp_path / "packs"))
    for name in ("small", "linked"):
        open_model(models / name, pack_cache=True)
    for name, left in (("linked", 2), ("small", 1)):  # a link's model is still there
        assert qwick("rm", name, "--yes").exit_code == 0
        assert len(list((tmp_path / "packs").iterdir())) == left
    monkeypatch.setenv("QWICK_PACKS", "/etc/passwd")
    assert qwick("rm", "broken", "--yes").exit_code == 0


def test_rm_deletes_the_link_and_not_the_model(models: Path, small: Path) -> None:
    result = qwick("rm", "linked", "--yes")
    assert "the link" in result.stderr
    assert not (models / "linked").is_symlink()
    assert (small / "config.json").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../small", "small/config.json", "/", "pocket", "s*", "-"])
def test_rm_never_leaves_the_store(models: Path, name: str) -> None:
    (models.parent / "small").mkdir()
    (models.parent / "small" / "config.json").write_text("{}")
    before = sorted(models.parent.rglob("*"))
    assert qwick("rm", "--yes", "--", name).exit_code == 2
    assert qwick("rm", "--yes", "--", str(models.parent / "small")).exit_code == 2
    assert sorted(models.parent.rglob("*")) == before
