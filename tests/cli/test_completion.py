"""Shell completion: scripts for each shell, models of the store, and nothing heavy on the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

START = "import sys; sys.argv = ['qwick', *sys.argv[1:]]; from qwick.cli.main import app; app()"


def qwick(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START, *arguments],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def completions(line: str, store: Path) -> list[str]:
    """What bash would offer for the last word of `line`."""
    words = line.split(" ")
    return qwick(
        _QWICK_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), QWICK_MODELS=str(store)
    ).split()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for name in ("Qwen3.5-0.8B", "Qwen3.5-4B", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "mine-Q4_K_M.gguf").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("shell", "marks"),
    [
        ("bash", ["complete -o default -F _qwick_completion qwick"]),
        ("zsh", ["#compdef qwick", "compdef _qwick_completion qwick"]),
        ("fish", ["complete --command qwick"]),
    ],
)
def test_there_is_a_script_for_each_shell(shell: str, marks: list[str]) -> None:
    # Without looking for the shell that started us, the option takes its name.
    shown = qwick("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert shown.strip() == qwick(_QWICK_COMPLETE=f"source_{shell}").strip()
    for mark in (*marks, f"_QWICK_COMPLETE=complete_{shell}"):
        assert mark in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_installs_itself(shell: str, tmp_path: Path) -> None:
    text = qwick("--install-completion", shell, HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert f"{shell} completion installed" in text
    assert any("qwick" in path.name for path in tmp_path.rglob("*"))


def test_models_are_completed_from_the_store(store: Path) -> None:
    assert completions("qwick run ", store) == ["pocket", "mine-Q4_K_M", "other", "Qwen3.5-0.8B", "Qwen3.5-4B"]
    assert completions("qwick run Qwen", store) == ["Qwen3.5-0.8B", "Qwen3.5-4B"]
    assert completions("qwick inspect po", store) == ["pocket"]


def test_paths_are_left_to_the_shell(store: Path) -> None:
    assert completions("qwick run ./", store) == []
    assert completions("qwick run /tmp/x", store) == []


def test_a_store_that_cannot_be_read_completes_quietly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert completions("qwick run ", tmp_path / "file") == ["pocket"]


def test_commands_options_and_formats_are_completed(store: Path) -> None:
    assert "inspect" in completions("qwick in", store)
    assert "--top-k" in completions("qwick run pocket --top", store)
    assert "q8_0" in completions("qwick run pocket --format q8", store)


def test_completing_a_model_loads_nothing_heavy(store: Path) -> None:
    code = f"""
import sys, atexit
atexit.register(lambda: print([m for m in ("numpy", "tokenizers", "rich", "jinja2") if m in sys.modules]))
{START}
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"_QWICK_COMPLETE": "complete_bash", "COMP_WORDS": "qwick run Qw", "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_loads_no_arithmetic() -> None:
    code = f"import atexit, sys; atexit.register(lambda: print('numpy' in sys.modules)); {START}"
    for arguments in (["--help"], ["run", "--help"], ["--version"]):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.splitlines()[-1] == "False"
