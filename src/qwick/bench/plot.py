"""Figures as a picture: bars of medians with their range, the limit as a mark, the best peer beside us."""

import io
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from qwick.bench.measure import Figure
from qwick.errors import UsageError

SUFFIX = ".png"
_OURS, _PEER, _LIMIT = "#2563eb", "#9ca3af", "#111827"
_BAR, _DPI = 0.38, 150  # of a row's height of 1; dots an inch


def check_plot(path: Path) -> None:
    """Raise what `save_plot` would, before anything is measured. UsageError."""
    if path.suffix.lower() != SUFFIX:
        raise UsageError(f"--plot {str(path)!a:.200} does not end in {SUFFIX}; give the name of a PNG file")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no such folder, or a folder of that name; choose another")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: no permission; choose another folder")
    _matplotlib("figure")


def save_plot(path: Path, title: str, figures: Sequence[Figure], peer: str = "") -> None:
    """One panel for prompts and one for answers, a row a case, in the order measured. Raises UsageError."""
    panels = [[f for f in figures if f.case.is_prompt == is_prompt] for is_prompt in (True, False)]
    panels = [panel for panel in panels if panel]
    heights = [len(panel) + 1 for panel in panels]
    canvas = _matplotlib("figure").Figure(figsize=(8, 1.2 + 0.5 * sum(heights)), dpi=_DPI, layout="constrained")
    axes = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for panel, axis in zip(panels, axes[:, 0], strict=True):
        _draw(axis, panel, peer)
    canvas.suptitle(title, fontsize=11, parse_math=False)  # a file may be called a$b$c
    picture = io.BytesIO()
    canvas.savefig(picture, format="png")
    try:
        path.write_bytes(picture.getvalue())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; choose another folder") from None


def _draw(axis: Any, panel: Sequence[Figure], peer: str) -> None:
    has_peer = any(figure.peer_rates for figure in panel)
    shift = _BAR / 2 if has_peer else 0.0
    labels = {_OURS: "qwick", _PEER: peer, _LIMIT: "limit of this machine"}  # each goes to the first that is drawn
    for row, figure in enumerate(panel):
        _bar(axis, row - shift, figure.rates, _OURS, labels)
        if figure.best_peer is not None:
            _bar(axis, row + shift, figure.peer_rates[figure.best_peer], _PEER, labels)
        label = labels.pop(_LIMIT, None)
        axis.vlines(figure.limit, row - 0.45, row + 0.45, color=_LIMIT, linewidth=1.5, label=label)
    threads = {figure.case.threads for figure in panel}
    names = [f.case.name + (f", {f.case.threads} threads" if len(threads) > 1 else "") for f in panel]
    axis.set_yticks(range(len(panel)), names)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel(f"{'prompt' if panel[0].case.is_prompt else 'answer'} tokens per second")
    axis.spines[["top", "right"]].set_visible(False)
    legend = axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for text in legend.get_texts():
        text.set_parse_math(False)


def _bar(axis: Any, row: float, rates: Sequence[float], colour: str, labels: dict[str, str]) -> None:
    """The median; the whisker spans all rounds."""
    middle = median(rates)
    whisker = [[middle - min(rates)], [max(rates) - middle]]
    style = {"height": _BAR, "color": colour, "error_kw": {"elinewidth": 1, "capsize": 2}}
    axis.barh(row, middle, xerr=whisker, label=labels.pop(colour, None), **style)


def _matplotlib(module: str) -> Any:
    """Imported only here: it is an extra, and slow to import."""
    try:
        return import_module(f"matplotlib.{module}")
    except ImportError:
        raise UsageError("--plot needs matplotlib; pip install 'qwick[plot]' brings it") from None
