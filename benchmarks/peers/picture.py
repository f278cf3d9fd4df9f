"""The pictures of docs/performance.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

OURS, PEER, LIMIT = "#2563eb", "#9ca3af", "#111827"
DPI = 110


def draw_shares(path: Path, bars: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Each row's tokens per second over what the read stream allows, the best peer's beside it: one scale for all."""
    canvas = Figure(figsize=(8, 1.4 + 0.52 * len(bars)), dpi=DPI, layout="constrained")
    axis = canvas.subplots()
    widest = 100.0
    labels = {OURS: "qwick", PEER: "llama.cpp, the better build"}  # each goes to the first bar that is drawn
    for place, (_, result) in enumerate(bars):
        limit = result["limit"]["median"]
        peer = result["peers"].get(result["best_peer"])
        shift = 0.2 if peer else 0.0
        pairs = [(place - shift, result["rates"], OURS)]
        if peer:
            pairs.append((place + shift, peer["rates"], PEER))
        for y, rates, colour in pairs:
            share = 100 * median(rates) / limit
            widest = max(widest, share)
            axis.barh(y, share, height=0.38, color=colour, label=labels.pop(colour, None))
            axis.text(share + 1, y, f"{median(rates):.1f}", va="center", fontsize=8)
    axis.axvline(100, color=LIMIT, linewidth=1)
    axis.set_yticks(range(len(bars)), [name for name, _ in bars])
    axis.invert_yaxis()
    axis.set_xlim(0, 1.12 * widest)
    axis.set_xlabel("% of a read stream of a step's bytes; figures: tokens per second")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    canvas.savefig(path)


def draw_threads(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Tokens per second over threads: ours, the stream's limit, the best peer's."""
    canvas = Figure(figsize=(6, 4), dpi=DPI, layout="constrained")
    axis = canvas.subplots()
    threads = [result["threads"] for result in results]
    axis.plot(threads, [result["median"] for result in results], "o-", color=OURS, label="qwick")
    axis.plot(threads, [result["limit"]["median"] for result in results], "--", color=LIMIT, label="read stream")
    beside = [(r["threads"], r["peers"][r["best_peer"]]["median"]) for r in results if r["best_peer"]]
    if beside:
        axis.plot(*zip(*beside, strict=True), "o-", color=PEER, label="llama.cpp, the better build")
    axis.set_xticks(threads)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("threads")
    axis.set_ylabel("tokens per second")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    canvas.savefig(path)
