"""How commands fail: one line, the documented exit code, no traceback; and how they help."""

import os
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qwick import errors
from qwick.cli import main
from qwick.cli.failures import EXIT_CODES
from qwick.cli.main import commands

RUNNER = CliRunner()
QWICK = [sys.executable, "-m", "qwick"]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> tuple[int, str]:
    """Exit code and standard error of a command that raises `error`."""

    def raising(*_: object) -> None:
        raise error

    monkeypatch.setattr(main.TyperGroup, "invoke", raising)
    result = RUNNER.invoke(commands, ["doctor"])
    return result.exit_code, result.stderr


def test_every_error_type_has_a_documented_exit_code() -> None:
    types = [errors.QwickError, *errors.QwickError.__subclasses__()]
    codes = [kind.exit_code for kind in types]
    assert len(set(codes)) == len(codes)
    assert set(codes) <= set(EXIT_CODES)


@pytest.mark.parametrize("kind", [errors.QwickError, *errors.QwickError.__subclasses__()])
def test_our_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, kind: type[errors.QwickError]) -> None:
    code, text = fail_with(monkeypatch, kind("a\nb\x1b[2J is wrong; do this"))
    assert code == kind.exit_code
    assert text == "qwick: error: a\\nb\\x1b[2J is wrong; do this\n"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (MemoryError(), 5, "--ctx-size"),
        (KeyboardInterrupt(), 130, ""),
        (ValueError("odd"), 1, "ValueError: odd; set QWICK_DEBUG=1"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (RecursionError("deep"), 1, "RecursionError"),
    ],
)
def test_other_errors_are_one_line_too(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    # os.dup2 on the test's own standard output would silence pytest.
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    found, shown = fail_with(monkeypatch, error)
    assert found == code
    assert text in shown
    assert shown.count("\n") == (1 if text else 0)


def test_our_warnings_are_one_line_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def warning(*_: object) -> None:
        for _i in range(2):
            warnings.warn("no kernel reads this\nat all", errors.FormatWarning, stacklevel=1)

    monkeypatch.setattr(main.TyperGroup, "invoke", warning)
    result = RUNNER.invoke(commands, ["doctor"])
    assert result.exit_code == 0
    assert result.stderr == "qwick: warning: no kernel reads this\\nat all\n" * 2


def test_a_developer_sees_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_DEBUG", "1")
    monkeypatch.setattr(main.TyperGroup, "invoke", lambda *_: 1 / 0)
    assert isinstance(RUNNER.invoke(commands, ["doctor"]).exception, ZeroDivisionError)


def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*QWICK, "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"qwick: error: the output: No space left on device; see that there is room and permission\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--no-such-option"], r"--no-such-option.*; qwick --help shows"),
        (["ruun"], r"'run'.*; qwick --help shows"),
        (["run", "--no-such-option"], r"--no-such-option.*--help shows"),
        (["run", "pocket", "hi", "--top-k", "many"], r"--top-k.*; qwick run --help shows"),
        (["run", "pocket", "hi", "--seed"], r"--seed"),
        (["help", "ruun"], r"'ruun'; did you mean run\?"),
        (["help", "zzz"], r"run or "),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(arguments: list[str], complaint: str) -> None:
    result = RUNNER.invoke(commands, arguments, prog_name="qwick")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert re.match(f"qwick: error: .*{complaint}", result.stderr)


def test_help_is_reached_in_every_way() -> None:
    def helped(*arguments: str) -> str:
        result = RUNNER.invoke(commands, arguments, prog_name="qwick", env={"TERM": "dumb"})
        assert result.exit_code == 0
        return result.stdout

    assert helped() == helped("--help") == helped("-h") == helped("help")
    assert helped("run", "--help") == helped("help", "run") == helped("run", "-h")
    assert "Exit codes: 0 done" in helped()


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What qwick writes to a terminal that is its standard output and error."""
    controller, terminal = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    process = subprocess.Popen(
        [*QWICK, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env=clean | {"TERM": "xterm-256color"} | environment,
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(controller, 1 << 16):
            shown += part
    except OSError:  # EIO: the other side is closed
        pass
    finally:
        os.close(controller)
        process.wait(timeout=60)
    return shown.decode()


@pytest.mark.parametrize("arguments", [("run", "no-such-model"), ("help",)])
def test_colours_only_where_they_are_wanted(arguments: tuple[str, ...]) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3\d")  # a foreground colour
    assert colour.search(on_a_terminal(*arguments))
    assert not colour.search(on_a_terminal(*arguments, NO_COLOR="1"))
    assert "\x1b" not in on_a_terminal(*arguments, TERM="dumb")
    piped = subprocess.run([*QWICK, *arguments], capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=60)
    assert b"\x1b" not in piped.stdout + piped.stderr
