"""What benchmarks/streams.py found, as tables."""

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

Found = Mapping[str, Any]


def together(found: Found) -> Iterator[str]:
    rate, by_bytes, by_madds = found["tokens_per_second"], found["bytes_bound"], found["madds_bound"]
    yield f"| {found['streams']} answers together | tokens/s | of the bound |"
    yield "|---|---|---|"
    yield f"| the engine, a step of {found['step_seconds'] * 1e3:.1f} ms | **{rate:.1f}** | |"
    stream = median(found["read_streams"]) / 1e9
    yield (
        f"| {found['bytes'] / 1e6:,.0f} MB a step, {found['weight_bytes'] / 1e6:,.0f} of them weights, at "
        f"{stream:.1f} GB/s | {by_bytes:.1f} | {rate / by_bytes:.0%} (asked: 80%) |"
    )
    yield (
        f"| {found['madds'] / 1e9:.1f} G multiply-adds a step, at {found['product_rate'] / 1e9:.0f} G/s "
        f"| {by_madds:.1f} | {rate / by_madds:.0%} |"
    )


def entering(found: Found) -> Iterator[str]:
    yield (
        "| limit of a step | at least | rows a step | gap, median | gap, p99 "
        f"| prompt of {found['prompt']:,}, tokens/s | of {found['lone_rate']:.0f} alone |"
    )
    yield "|---|---|---|---|---|---|---|"
    for row in found["rows"]:
        yield (
            f"| {row['delay']:g} × {row['step_alone'] * 1e3:.1f} ms | {row['least_rows']} rows "
            f"| {row['rows_a_step']:.1f} | {row['gap_median']:.2f}× | **{row['gap_p99']:.2f}×** (asked: 2.5×) "
            f"| {row['rate']:.0f} | **{row['share']:.0%}** (asked: 60%) |"
        )


def pieces(found: Found) -> Iterator[str]:
    seconds = {int(size): value for size, value in found["step_seconds"].items()}
    yield "| rows of a prompt beside one of an answer | step | for each row |"
    yield "|---|---|---|"
    for size, value in seconds.items():
        each = f"{(value - seconds[0]) / size * 1e3:.2f} ms" if size else ""
        yield f"| {size} | {value * 1e3:.1f} ms | {each} |"
