"""What a terminal needs: a progress bar, and text that cannot take it over."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

import typer


def is_terminal(stream: TextIO | None) -> bool:
    """False for pipes and files, and for a stream that was closed before we started."""
    return stream is not None and not stream.closed and stream.isatty()


def has_colours(stream: TextIO | None) -> bool:
    """A terminal that can, and whose owner does not mind (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def harmless(text: str) -> str:
    """`text` without control characters but newline and tab: a model or a file must not send escape sequences."""
    return "".join(char for char in text if char in "\n\t" or not _is_control(char))


def one_line(text: str) -> str:
    """`text` in one line, control characters spelled out."""
    spelled = (ascii(char)[1:-1] if _is_control(char) or "\ud800" <= char <= "\udfff" else char for char in text)
    return "".join(spelled)


def complain(message: str) -> None:
    """An error, as one line on standard error."""
    _tell("\x1b[1;31m", "qwick: error:", message)


def note(message: str) -> None:
    """What was asked to be told, as one line on standard error."""
    _tell("\x1b[1;34m", "qwick:", message)


def warn(message: str) -> None:
    """A warning, as one line on standard error."""
    _tell("\x1b[1;33m", "qwick: warning:", message)


def _tell(colour: str, name: str, message: str) -> None:
    shown = f"{colour}{name}\x1b[0m" if has_colours(sys.stderr) else name
    typer.echo(f"{shown} {one_line(message)}", err=True)


@contextmanager
def loading_bar(text: str) -> Generator[Callable[[int, int], None] | None]:
    """A callback (bytes done, bytes in all) that draws a bar on standard error; None when that is no terminal."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(one_line(text), total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield show


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f"
