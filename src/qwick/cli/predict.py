"""`qwick doctor --predict`: what each size of model would do on this machine, before any download."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from qwick.bench.limits import MachineLimits

RECIPES = ("Q4_K_M", "Q8_0", "BF16")
GIB = 2**30


def show_predictions(*, as_json: bool) -> None:
    """Measure the machine, then print a table (or one JSON object) of sizes and formats."""
    from qwick.bench.limits import measure_limits
    from qwick.bench.predict import predict
    from qwick.bench.sizes import SIZES, size_config
    from qwick.quantize.recipes import recipe_formats

    if not as_json:
        typer.echo("measuring memory and matrix products …", err=True)
    configs = {size: size_config(size, mtp=False) for size in SIZES}
    plans = {(size, recipe): recipe_formats(recipe, configs[size]) for size in SIZES for recipe in RECIPES}
    limits = measure_limits({format for formats in plans.values() for format in formats.values()})
    rows = [
        {"model": size, "format": recipe} | asdict(predict(configs[size], formats, limits))
        for (size, recipe), formats in plans.items()
    ]
    if as_json:
        typer.echo(json.dumps({"machine": asdict(limits), "predictions": rows}, indent=2))
        return
    for line in (*_machine_lines(limits), "", *_table(rows), "", *_notes()):
        typer.echo(line)


def _machine_lines(limits: "MachineLimits") -> Iterator[str]:
    yield f"kernels    {limits.isa}, {limits.threads} threads (prompts {limits.threads_batch})"
    yield f"memory     {limits.read_bytes / 1e9:.1f} GB/s read, {limits.available_bytes / GIB:.1f} GiB available"
    yield f"matrices   {limits.matrix_madds / 1e9:,.0f} billion multiply-adds a second"


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'model':<14}{'format':<8}{'answer':>12}{'prompt':>14}{'file':>11}{'memory':>11}{'first token':>14}"
    for row in rows:
        memory = row["weight_bytes"] + row["cache_bytes"] + row["other_bytes"]
        line = (
            f"{row['model']:<14}{row['format']:<8}{row['decode_rate']:>7,.1f} tok/s{row['prompt_rate']:>8,.0f} tok/s"
            f"{row['file_bytes'] / GIB:>7.2f} GiB{memory / GIB:>7.2f} GiB{row['start_seconds']:>12.1f} s"
        )
        yield line if row["fits"] else line + "  does not fit"


def _notes() -> Iterator[str]:
    from qwick.bench.predict import DECODE_SHARE, PROMPT_LEN, PROMPT_SHARE

    yield (
        f"Reckoned with {DECODE_SHARE:.0%} of the kernels' speed on matrices alone for answers, {PROMPT_SHARE:.0%} for"
    )
    yield f"prompts (of {PROMPT_LEN} tokens); memory with 4,096 tokens of context; first token with the file in memory."
