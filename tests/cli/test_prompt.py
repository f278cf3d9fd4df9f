"""What the model is asked: the order of the parts, fences, and what is refused."""

import io
import os
import sys
from pathlib import Path

import pytest

from qwick.cli import prompt
from qwick.cli.prompt import MAX_BYTES, read_prompt, read_system
from qwick.errors import UsageError


class Terminal(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO())

    def isatty(self) -> bool:
        return True


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_files_come_first_then_standard_input_then_the_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.txt").write_text("b")
    pipe(monkeypatch, b"piped\r\n")
    text = read_prompt(["what", "is this?"], [tmp_path / "a.py", tmp_path / "b.txt"], "m")
    assert text == "a.py:\n```\nx = 1\n```\n\nb.txt:\n```\nb\n```\n\npiped\n\nwhat is this?"


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    (tmp_path / "f").write_text("all of it")
    assert read_prompt(["hi"], [], "m") == "hi"
    assert read_prompt([], [tmp_path / "f"], "m") == "f:\n```\nall of it\n```"
    with pytest.raises(UsageError, match="qwick chat m"):
        read_prompt([], [], "m")


def test_no_standard_input_at_all_is_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert read_prompt(["hi"], [], "m") == "hi"
    with pytest.raises(UsageError, match="empty"):
        read_prompt([" "], [], "m")


@pytest.mark.parametrize(("text", "fence"), [("a", "```"), ("```\na\n```", "````"), ("  ``````x", "```````")])
def test_a_file_cannot_close_its_fence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, fence: str) -> None:
    pipe(monkeypatch, b"")
    (tmp_path / "f.md").write_text(text)
    assert read_prompt([], [tmp_path / "f.md"], "m") == f"f.md:\n{fence}\n{text}\n{fence}"


def test_a_hostile_file_name_stays_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pipe(monkeypatch, b"")
    (tmp_path / "a\nb").write_text("x")
    assert read_prompt([], [tmp_path / "a\nb"], "m").startswith(r"a\nb:")


def test_text_ends_where_a_context_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * MAX_BYTES)
    pipe(monkeypatch, b"")
    assert len(read_prompt([], [tmp_path / "f"], "m")) > MAX_BYTES
    (tmp_path / "f").write_bytes(b"x" * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match="larger than"):
        read_prompt([], [tmp_path / "f"], "m")
    pipe(monkeypatch, b"x" * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match="standard input is larger"):
        read_prompt([], [], "m")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"ok\xc3", b"\xed\xa0\x80"])
def test_what_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f").write_bytes(data)
    pipe(monkeypatch, b"")
    with pytest.raises(UsageError, match="UTF-8"):
        read_prompt([], [tmp_path / "f"], "m")
    with pytest.raises(UsageError, match="UTF-8"):
        read_system(f"@{tmp_path / 'f'}")


def test_a_pipe_that_nobody_closes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe's other end closes only once the user was told: a reader that stays silent would wait here for ever."""
    monkeypatch.setattr(prompt, "PATIENCE", 0.05)
    reading, writing = os.pipe()
    told: list[str] = []

    def tell(message: str) -> None:
        told.append(message)
        os.close(writing)

    monkeypatch.setattr(prompt, "warn", tell)
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert read_prompt(["hi"], [], "m") == "hi"
    (message,) = told
    assert "< /dev/null" in message


def test_a_byte_order_mark_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"\xef\xbb\xbfhi")
    assert read_prompt([], [], "m") == "hi"


def test_a_system_message_is_given_or_read(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("Be brief.\n")
    assert read_system(None) is None
    assert read_system("Be brief.") == "Be brief."
    assert read_system(f"@{tmp_path / 's'}") == "Be brief."
    for name in ("@", "@a\0b", "@no/such"):
        with pytest.raises(UsageError, match="--system"):
            read_system(name)
