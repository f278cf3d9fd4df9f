"""What benchmarks/peers/table.py measured, as Markdown and pictures: `table.md` and PNG files beside the rows' JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.picture import draw_shares, draw_threads

BEGIN, END = "<!-- measured: written by benchmarks/peers/table.py -->", "<!-- end of what was measured -->"
Found = Mapping[str, Any]


def write_page(out: Path, page: Path | None, order: Sequence[str]) -> None:
    """Every machine's folder in `out`; `page`, if given, holds all tables between its two marks.

    Where nothing was measured yet, nothing is written.
    """
    if not out.is_dir():
        return
    parts: list[str] = []
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        rows = [json.loads(path.read_text()) for name in order if (path := folder / f"{name}.json").exists()]
        if not rows:
            continue
        pictures = list(_draw(folder, rows))
        (folder / "table.md").write_text("\n".join(section(rows)) + "\n")
        prefix = f"{out.name}/{folder.name}"
        parts += [*section(rows), *(f"![{text}]({prefix}/{name})\n" for name, text in pictures)]
    if page is not None:
        before, _, rest = page.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text("\n".join([before + BEGIN, "", *parts, END]) + after)


def section(rows: Sequence[Found]) -> Iterator[str]:
    """One machine."""
    machine = rows[0]["machine"]
    yield f"### {machine['processor']}, {machine['cores']} cores, {machine['best_isa']}"
    yield ""
    yield from _about(rows)
    yield ""
    single = [row for row in rows if not row["row"].endswith(("depth", "depth-peer", "threads"))]
    for reads, limit in ((False, "the read stream"), (True, "one matrix product")):
        lines = [line(row) for row in single if is_prompt(row) == reads]
        if lines:
            yield f"| | tokens/s | llama.cpp | ratio | of {limit} | load before, after |"
            yield "|---|---|---|---|---|---|"
            yield from lines
            yield ""
    by_name = {row["row"]: row for row in rows}
    if "0.8b-depth" in by_name:
        yield "| 0.8B Q4_K_M, context of | ms a token | more than at 0 | KV bytes ÷ stream | times | llama.cpp: more |"
        yield "|---|---|---|---|---|---|"
        yield from depth_lines(by_name["0.8b-depth"], by_name.get("0.8b-depth-peer"))
        yield ""
    if "0.8b-threads" in by_name:
        yield "| 0.8B Q4_K_M, threads | tokens/s | llama.cpp | ratio | of the read stream |"
        yield "|---|---|---|---|---|"
        yield from thread_lines(by_name["0.8b-threads"])
        yield ""


def _about(rows: Sequence[Found]) -> Iterator[str]:
    machine = rows[0]["machine"]
    builds: dict[str, str] = {}
    for row in rows:  # llama-batched-bench alone does not say its version
        builds |= {
            variant: max(name, builds.get(variant, ""), key=len) for variant, name in row["report"]["peers"].items()
        }
    decode = [result for row in rows if not is_prompt(row) for result in row["report"]["results"]]
    streams = [speed for result in decode for speed in result["limit"]["speeds"]]
    commits = sorted({row["machine"]["qwick"] for row in rows})
    dates = sorted({row["date"] for row in rows})
    stream = f"read stream {median(streams) / 1e9:.1f} GB/s; " if streams else ""
    yield (
        f"{machine['cores']} cores, {machine['hardware_threads']} hardware threads, {machine['memory_gib']} GiB; "
        f"{stream}Linux {machine['kernel']}, huge pages: {machine['huge_pages']}; "
        f"{machine['compiler']}; Python {machine['python']}. qwick {', '.join(commits)}. "
        f"{', '.join(f'{name} ({variant})' for variant, name in builds.items())}. {dates[0]} to {dates[-1]}."
    )


def title(row: Found) -> str:
    """`0.8b-avx2` -> what a reader calls it."""
    result, report = row["report"]["results"][0], row["report"]
    _, size, kind = report["model"]["path"].split("-")[:3]
    text = f"{size.upper()} {kind}, {result['test'].split()[0]}"
    if result["batch"] > 1:
        text += f", {result['batch']} sequences together"
    return text + (f", forced {report['machine']['isa']}" if "QWICK_ISA=" in row["command"] else "")


def is_prompt(row: Found) -> bool:
    """Of tokens read, not decoded."""
    return row["report"]["results"][0]["test"].startswith("pp")


def line(row: Found) -> str:
    """One row of the main tables."""
    (result,) = row["report"]["results"]
    asked, limit = row["asked"], result["limit"]
    share = f"{limit['share']:.0%}" + (f" (asked: {asked['share']:.0%})" if asked["share"] else "")
    load = ", ".join(f"{row['report']['machine'][f'load_{when}']:.1f}" for when in ("before", "after"))
    return f"| {title(row)} | {_rates(result)} | {_peer_cells(result, asked['ratio'])} | {share} | {load} |"


def _rates(result: Found) -> str:
    return f"**{_number(result['median'])}** ({_number(result['min'])}–{_number(result['max'])})"


def _peer_cells(result: Found, asked: float | None = None) -> str:
    if result["best_peer"] is None:
        return "– | –"
    peer = result["peers"][result["best_peer"]]
    wanted = f"; asked: {asked:.1f}×" if asked else ""
    others = [f"{name} {_number(found['median'])}" for name, found in result["peers"].items() if found is not peer]
    rates = f"{_number(min(peer['rates']))}–{_number(max(peer['rates']))}"
    theirs = f"{_number(peer['median'])} ({'; '.join([rates, *others])}), {result['best_peer']}"
    return f"{theirs} | **{peer['ratio']:.2f}×** ({peer['ratio_min']:.2f}–{peer['ratio_max']:.2f}{wanted})"


def depth_lines(row: Found, peer_row: Found | None) -> Iterator[str]:
    """Extra time of each depth against depth 0 of the same round."""
    first, *deeper = row["report"]["results"]
    yield f"| 0 | {1e3 / first['median']:.2f} | | | | |"
    for result in deeper:
        extra, ideal, times = extra_times(row["report"], first, result)
        theirs = peer_extra(peer_row, result["depth"])
        columns = (1 / result["median"], median(extra), median(ideal))
        yield (
            f"| {result['depth']:,} | {' | '.join(f'{seconds * 1e3:.2f}' for seconds in columns)} "
            f"| **{median(times):.2f}** ({min(times):.2f}–{max(times):.2f}; asked: 1.3) "
            f"| {'' if theirs is None else f'{theirs * 1e3:.1f}'} |"
        )


def extra_times(report: Found, first: Found, result: Found) -> tuple[list[float], list[float], list[float]]:
    """By round: (seconds a token more than at depth 0, KV bytes over the stream's speed, their ratio)."""
    num_bytes = (result["depth"] - first["depth"]) * report["model"]["kv_bytes_per_token"]
    extra = [1 / deep - 1 / shallow for deep, shallow in zip(result["rates"], first["rates"], strict=True)]
    ideal = [num_bytes / speed for speed in result["limit"]["speeds"]]
    return extra, ideal, [found / least for found, least in zip(extra, ideal, strict=True)]


def peer_extra(row: Found | None, depth: int) -> float | None:
    """Seconds a token, of the best peer."""
    if row is None:
        return None
    by_depth = {result["depth"]: result for result in row["report"]["results"]}
    if depth not in by_depth or 0 not in by_depth:
        return None
    rates = [max(peer["median"] for peer in by_depth[d]["peers"].values()) for d in (0, depth)]
    return 1 / rates[1] - 1 / rates[0]


def thread_lines(row: Found) -> Iterator[str]:
    """One line a number of threads."""
    for result in row["report"]["results"]:
        share = f"{result['limit']['share']:.0%}"
        yield f"| {result['threads']} | {_rates(result)} | {_peer_cells(result)} | {share} |"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _draw(folder: Path, rows: Sequence[Found]) -> Iterator[tuple[str, str]]:
    """(file, what it shows) of each picture that there is something for."""
    single = [row for row in rows if len(row["report"]["results"]) == 1 and not is_prompt(row)]
    bars = [(title(row), row["report"]["results"][0]) for row in single]
    if bars:
        draw_shares(folder / "shares.png", bars)
        yield "shares.png", "Decode as a share of a read stream of the same bytes, beside llama.cpp"
    scaling = next((row for row in rows if row["row"] == "0.8b-threads"), None)
    if scaling:
        draw_threads(folder / "threads.png", scaling["report"]["results"])
        yield "threads.png", "Decode with more threads"
