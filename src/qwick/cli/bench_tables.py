"""What `qwick bench` found, as tables."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

import typer

from qwick.cli.tables import show_table
from qwick.cli.terminal import is_terminal

if TYPE_CHECKING:
    from qwick.bench.measure import Figure
    from qwick.bench.op_profile import OpRow


def show_figures(figures: "Sequence[Figure]") -> None:
    """A row a case; where peers ran, the best one's figures and the ratio of the medians behind."""
    with_peer = any(figure.peer_rates for figure in figures)
    head = ["TEST", "THREADS", "TOKENS/S", "RANGE", "LIMIT", "OF IT", "LOAD"]
    rows = [[*_cells(figure), *(_peer_cells(figure) if with_peer else ())] for figure in figures]
    plain = [[cell.replace(",", "") for cell in row] for row in rows]
    show_table(head + ["PEER", "RANGE", "RATIO", "RANGE"] * with_peer, rows, plain)


def _cells(figure: "Figure") -> Iterator[str]:
    yield figure.case.name
    yield str(figure.case.threads)
    yield _rate(figure.rate)
    yield _range(figure.rates, _rate)
    yield _rate(figure.limit)
    yield f"{figure.share:.0%}"
    yield f"{max(figure.loads):.1f}"


def _peer_cells(figure: "Figure") -> Iterator[str]:
    peer = figure.best_peer
    if peer is None:
        yield from ("", "", "", "")
        return
    yield _rate(median(figure.peer_rates[peer]))
    yield _range(figure.peer_rates[peer], _rate)
    yield f"{figure.ratio(peer):.2f}×"
    yield _range(figure.ratios(peer), lambda ratio: f"{ratio:.2f}")


def _range(values: Sequence[float], text: Callable[[float], str]) -> str:
    return f"{text(min(values))}..{text(max(values))}"


def _rate(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def notes(figures: "Sequence[Figure]", peers: Mapping[str, str]) -> Iterator[str]:
    """What the table's limits are, who the peers are (name by what the user calls it), whether the machine was busy."""
    for is_prompt, what in (
        (False, "a read stream of a step's bytes, {:.1f} GB/s"),
        (True, "one matrix product, {:,.0f} billion multiply-adds/s"),
    ):
        speeds = [speed for figure in figures if figure.case.is_prompt == is_prompt for speed in figure.speeds]
        if speeds:
            yield f"limit of {'pp' if is_prompt else 'tg'}: {what.format(median(speeds) / 1e9)}"
    if peers:
        shown = (name if len(peers) == 1 else f"{name} ({called})" for called, name in peers.items())
        better = ", the best of them in each row" * (len(peers) > 1)
        yield f"peer: {', '.join(shown)}{better}; ratios of medians, and their range in pairs"
    if max(load for figure in figures for load in figure.loads) > 1.5 * max(f.case.threads for f in figures):
        yield "the machine was busy with other work: figures and limits are lower than they could be"


def show_ops(name: str, rows: "Sequence[OpRow]", figure: "Figure") -> None:
    """A table under its case's name. Speeds beside the stream that the case's limit comes from; a prompt has none."""
    total = sum(row.seconds for row in rows)
    stream = 0.0 if figure.case.is_prompt else median(figure.speeds)
    cells = [
        [
            row.kind,
            str(row.count),
            f"{row.seconds / total:.1%}",
            f"{row.seconds * 1e3:.3f}",
            f"{row.num_bytes / 1e6:.1f}",
            f"{row.speed / 1e9:.1f}" if row.num_bytes else "",
            f"{row.speed / stream:.0%}" if row.num_bytes and stream else "",
        ]
        for row in rows
    ]
    if is_terminal(sys.stdout):
        typer.echo(f"\n{name}")
    head = ["OP", "COUNT", "TIME", "MS A STEP", "MB A STEP", "GB/S", "OF STREAM"]
    show_table(head, cells, [[name, *row] for row in cells])
