"""Numbers and tables as people read them on a terminal and scripts read them from a pipe."""

import sys
from collections.abc import Sequence
from time import time

import typer

from qwick.cli.terminal import has_colours, is_terminal, one_line


def size_text(num_bytes: float) -> str:
    """Bytes in the unit that suits."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.2f} {unit}"
    return f"{num_bytes:,.0f} bytes"


def count_text(count: int) -> str:
    """Parameters or operations: 752.4M."""
    for unit, scale in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= scale:
            return f"{count / scale:.3g}{unit}" if count >= 100 * scale else f"{count / scale:.2f}{unit}"
    return f"{count}"


def ago_text(then: float) -> str:
    """Seconds since 1970 as a distance from now."""
    seconds = max(0.0, time() - then)
    for unit, length in (
        ("year", 31_556_952),
        ("month", 2_629_746),
        ("week", 604_800),
        ("day", 86_400),
        ("hour", 3600),
    ):
        if seconds >= length:
            count = int(seconds / length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return f"{int(seconds / 60)} minutes ago" if seconds >= 120 else "just now"


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], plain: Sequence[Sequence[str]]) -> None:
    """Aligned under `head` on a terminal; elsewhere the `plain` rows, their cells between tabs, without a head."""
    if not is_terminal(sys.stdout):
        for row in plain:
            typer.echo("\t".join(one_line(cell) for cell in row))
        return
    cells = [list(head), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for number, row in enumerate(cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        typer.echo(typer.style(line, bold=True) if number == 0 and has_colours(sys.stdout) else line)
