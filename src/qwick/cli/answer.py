"""An answer on its way to the screen: reasoning dimmed and apart, the answer itself on standard output."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

import typer

from qwick.cli.terminal import harmless, has_colours, is_terminal

if TYPE_CHECKING:
    from qwick.text.segments import AnySegment

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class AnswerWriter:
    """Writes pieces as they come, and line breaks between and after.

    Standard output that is no terminal gets the answer only; reasoning then goes to standard error if somebody watches
    there or `show_thinking` is true, and nowhere if not.
    """

    def __init__(self, *, show_thinking: bool | None = None) -> None:
        self._answer_clean = harmless if is_terminal(sys.stdout) else str
        watched = next((stream for stream in (sys.stdout, sys.stderr) if is_terminal(stream)), None)
        if watched is None and show_thinking:
            watched = sys.stderr
        self._screen: TextIO | None = None if show_thinking is False else watched
        self._dims = has_colours(self._screen)
        self._thinking = False
        self._last = ""

    def write(self, segments: "Iterable[AnySegment]") -> None:
        """All of them; what was begun is ended also when the generation is broken off."""
        from qwick.text.segments import Kind

        try:
            for segment in segments:
                if segment.kind is Kind.REASONING:
                    self._think(segment.text)
                else:
                    self._stop_thinking("\n\n")
                    self._say(segment.text)
        finally:
            self._stop_thinking("\n")
        if not self._last.endswith("\n"):
            self._say("\n")

    def _think(self, text: str) -> None:
        if self._screen is None:
            return
        if not self._thinking:
            self._thinking = True
            self._show(_DIM if self._dims else "Thinking:\n")
        self._show(harmless(text))

    def _stop_thinking(self, end: str) -> None:
        if self._thinking:
            self._thinking = False
            self._show((_PLAIN if self._dims else "\nDone thinking.") + end)

    def _show(self, text: str) -> None:
        typer.echo(text, file=self._screen, nl=False, color=True)

    def _say(self, text: str) -> None:
        text = self._answer_clean(text)
        self._last = text or self._last
        typer.echo(text, nl=False, color=True)  # True: bytes as they are; a pipe gets what the model wrote
