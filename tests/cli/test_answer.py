"""Where an answer and its reasoning go: terminals, pipes, colours, and an end in the middle."""

import contextlib
import io
import sys
from collections.abc import Iterator

import pytest

from qwick.cli.answer import AnswerWriter
from qwick.text.segments import Kind, Segment

THOUGHT = [Segment(Kind.REASONING, "hm"), Segment(Kind.REASONING, "m"), Segment(Kind.CONTENT, "yes")]


class Stream(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.fixture(autouse=True)
def _ordinary_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def shown(
    monkeypatch: pytest.MonkeyPatch,
    segments: Iterator[Segment] | list[Segment],
    out: bool,
    err: bool,
    show: bool | None = None,
) -> tuple[str, str]:
    """What standard output and standard error show; `out` and `err`: whether they are terminals."""
    streams = Stream(is_terminal=out), Stream(is_terminal=err)
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with contextlib.suppress(KeyboardInterrupt):
        AnswerWriter(show_thinking=show).write(segments)
    return streams[0].getvalue(), streams[1].getvalue()


def test_reasoning_is_dimmed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, THOUGHT, True, True) == ("\x1b[2mhmm\x1b[0m\n\nyes\n", "")


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_without_colours_words_mark_it(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    assert shown(monkeypatch, THOUGHT, True, True) == ("Thinking:\nhmm\nDone thinking.\n\nyes\n", "")


def test_a_pipe_gets_the_answer_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, THOUGHT, False, True) == ("yes\n", "\x1b[2mhmm\x1b[0m\n\n")
    assert shown(monkeypatch, THOUGHT, False, False) == ("yes\n", "")


def test_it_can_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for out, err in ((True, True), (False, True)):
        assert shown(monkeypatch, THOUGHT, out, err, show=False) == ("yes\n", "")


def test_it_can_be_asked_for_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, THOUGHT, False, False, show=True) == ("yes\n", "Thinking:\nhmm\nDone thinking.\n\n")
    assert shown(monkeypatch, THOUGHT, True, False, show=True) == shown(monkeypatch, THOUGHT, True, False)


def test_breaking_off_leaves_a_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_off() -> Iterator[Segment]:
        yield THOUGHT[0]
        raise KeyboardInterrupt

    assert shown(monkeypatch, broken_off(), True, True)[0] == "\x1b[2mhm\x1b[0m\n"


def test_escape_sequences_of_a_model_reach_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [Segment(Kind.REASONING, "\x1b[2J"), Segment(Kind.CONTENT, "\x1b[31mred")]
    assert shown(monkeypatch, both, False, False)[0] == "\x1b[31mred\n"
    assert shown(monkeypatch, both, True, True)[0] == "\x1b[2m[2J\x1b[0m\n\n[31mred\n"


def test_one_line_break_ends_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, end in (("a", "a\n"), ("a\n", "a\n"), ("\n", "\n")):
        assert shown(monkeypatch, [Segment(Kind.CONTENT, text)], False, False)[0] == end
    assert shown(monkeypatch, [], False, False)[0] == "\n"
