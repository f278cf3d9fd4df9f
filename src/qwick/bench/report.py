"""A measurement as one JSON object: everything that was measured, and what it was measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from qwick.bench.measure import Figure
from qwick.bench.op_profile import OpRow

SCHEMA = 2


def report(
    machine: Mapping[str, Any],
    model: Mapping[str, Any],
    figures: Sequence[Figure],
    peers: Mapping[str, str] | None = None,
    profiles: Mapping[str, Sequence[OpRow]] | None = None,
) -> dict[str, Any]:
    """`peers`: name and version by what the user calls them. `profiles`: ops by the name of their case."""
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": dict(machine),
        "model": dict(model),
        "peers": dict(peers or {}),
        "results": [figure_object(figure) for figure in figures],
    }
    if profiles:
        found["ops"] = {
            name: [asdict(row) | {"bytes_per_second": row.speed} for row in rows] for name, rows in profiles.items()
        }
    return found


def figure_object(figure: Figure) -> dict[str, Any]:
    """Rates in tokens per second, of all sequences together; by round under `rates`."""
    case = figure.case
    return {
        "test": case.name,
        "kind": "prompt" if case.is_prompt else "decode",
        "num_tokens": case.num_tokens,
        "depth": case.depth,
        "batch": case.batch,
        "threads": case.threads,
        "median": figure.rate,
        "min": min(figure.rates),
        "max": max(figure.rates),
        "rates": figure.rates,
        "limit": {
            "of": "matrix product" if case.is_prompt else "read stream",
            "unit": "multiply-adds per second" if case.is_prompt else "bytes per second",
            "speeds": figure.speeds,
            "median": figure.limit,
            "share": figure.share,
        },
        "load": {"min": min(figure.loads), "max": max(figure.loads)},
        "best_peer": figure.best_peer,
        "peers": {peer: _peer_object(figure, peer) for peer in figure.peer_rates},
    }


def _peer_object(figure: Figure, peer: str) -> dict[str, Any]:
    rates, ratios = figure.peer_rates[peer], figure.ratios(peer)
    return {
        "median": median(rates),
        "rates": rates,
        "ratio": figure.ratio(peer),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }
