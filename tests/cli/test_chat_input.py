"""Messages from lines: one a line, or several lines in one message; nothing is lost."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.cli import chat_input
from qwick.cli.chat_input import QUOTES, is_open, turns_in, unquoted
from qwick.errors import UsageError


def turns(text: str) -> list[str]:
    return list(turns_in(text.encode().splitlines(keepends=True)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("one\ntwo\n", ["one", "two"]),
        ("one\r\ntwo", ["one", "two"]),
        ("\ufeffone\n", ["one"]),
        ("a \\\nb\\\nc\nd\n", ["a \nb\nc", "d"]),
        ("ends\\", ["ends"]),
        ('"""\na\n\nb\n"""\nc\n', ['"""\na\n\nb\n"""', "c"]),
        ('"""a"""\nb\n', ['"""a"""', "b"]),
        ('"""a\\\nb"""\n', ['"""a\\\nb"""']),
        ('"""a\nb', ['"""a\nb']),
        ('say """ in the middle\n', ['say """ in the middle']),
        ("\n\n", ["", ""]),
    ],
)
def test_lines_become_messages(text: str, expected: list[str]) -> None:
    assert turns(text) == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1), max_size=6))
def test_no_line_is_lost(lines: list[str]) -> None:
    joined = "\n".join(turns("".join(f"{line}\n" for line in lines)))
    for line in lines:
        assert line.lstrip("\ufeff").removesuffix("\\") in joined


@pytest.mark.parametrize(
    ("text", "is_still_open", "meant"),
    [
        ("a", False, "a"),
        ("/help", False, "/help"),
        (QUOTES, True, ""),
        (QUOTES + '"', True, '"'),
        (QUOTES + QUOTES, False, ""),
        (f"{QUOTES}a", True, "a"),
        (f"{QUOTES}\n  a\n\nb\n{QUOTES}", False, "  a\n\nb"),
        (f" {QUOTES}/etc{QUOTES} ", False, "/etc"),
        (f"a {QUOTES}b{QUOTES}", False, f"a {QUOTES}b{QUOTES}"),
    ],
)
def test_three_quotes_hold_several_lines(text: str, is_still_open: bool, meant: str) -> None:
    assert is_open(text) == is_still_open
    assert unquoted(text) == meant


def test_what_is_no_text_is_refused_with_its_line() -> None:
    with pytest.raises(UsageError, match="line 2"):
        list(turns_in([b"a\n", b"\xff\n"]))


def test_the_history_is_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = chat_input._open_history()
    history.append_string("a\nb")
    assert list(chat_input._open_history().load_history_strings()) == ["a\nb"]
    path = chat_input.history_path()
    assert path.is_relative_to(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_where_no_file_can_be_history_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qwick").write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = chat_input._open_history()
    history.append_string("a")
    assert history.get_strings() == ["a"]
    assert (tmp_path / "qwick").read_text() == "no folder"


def test_what_cannot_be_written_does_not_end_a_chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = chat_input._open_history()
    chat_input.history_path().unlink()
    chat_input.history_path().symlink_to("/dev/full")
    for text in ("a", "caf\udce9"):
        history.append_string(text)
    assert history.get_strings() == ["a", "caf\udce9"]


def test_a_relative_state_folder_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert chat_input.history_path() == tmp_path / ".local" / "state" / "qwick" / "chat_history"
