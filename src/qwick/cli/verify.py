"""`qwick verify`: the shipped checks on the user's own model."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from qwick.cli.options import ModelName
from qwick.cli.terminal import loading_bar, one_line
from qwick.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from qwick.verify.report import Check


def verify(
    model: ModelName = "pocket",
    *,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Threads to compute with.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Check MODEL on this machine: memory against the file, kernels against plain arithmetic, bitwise invariances.

    Where torch and transformers are installed and MODEL is a folder, also its logits against theirs. Exit code 8 when
    a check failed.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}; it must be at least 1")

    from qwick.store import find_model
    from qwick.verify.report import Outcome
    from qwick.verify.run import verify as run_checks

    path = find_model(model)
    checks: list[Check] = []
    with loading_bar(f"loading {model}") as progress:
        for check in run_checks(path, threads, progress):
            checks.append(check)
            if not as_json:
                _show(check, checks)
    count = {outcome: sum(check.outcome == outcome for check in checks) for outcome in Outcome}
    if as_json:
        listed = [asdict(check) for check in checks]
        typer.echo(json.dumps({"model": str(path), "counts": count, "checks": listed}, indent=2))
    else:
        typer.echo(f"\n{count[Outcome.OK]} ok, {count[Outcome.FAILED]} failed, {count[Outcome.SKIPPED]} skipped")
    if count[Outcome.FAILED]:
        raise VerificationError(
            f"{count[Outcome.FAILED]} of {len(checks)} checks of {model} failed; download the file again, or try "
            "QWICK_ISA=scalar and report what `qwick doctor` shows"
        )


def _show(check: "Check", so_far: "list[Check]") -> None:
    """One line a check, under its group's name."""
    if len(so_far) < 2 or so_far[-2].group != check.group:
        typer.echo(f"\n{check.group}" if len(so_far) > 1 else check.group)
    figure = "" if check.figure is None else f"{check.figure:.2e} of at most {check.bound:.2e}"
    text = "; ".join(part for part in (figure, check.detail) if part)
    typer.echo(one_line(f"  {check.outcome:<8} {check.name:<20} {text}"))
