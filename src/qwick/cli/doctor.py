"""`qwick doctor`: what this machine can do, what was chosen, and why."""

import platform
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer

from qwick.cli.predict import show_predictions
from qwick.cli.terminal import one_line
from qwick.errors import QwickError, UsageError

PACKAGES = ("numpy", "tokenizers", "jinja2", "typer", "rich")


def doctor(
    *,
    predict: Annotated[
        bool, typer.Option("--predict", help="Predict speed, memory and start of every size on this machine.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --predict: as one JSON object.")] = False,
) -> None:
    """Show the processor, the chosen kernels, threads, memory and versions, and let the embedded model say a word."""
    if as_json and not predict:
        raise UsageError("--json goes with --predict; write `qwick doctor --predict --json`")
    if predict:
        show_predictions(as_json=as_json)
        return
    from qwick.ops.native import describe_machine

    machine = describe_machine()
    rows = [
        ("processor", _processor()),
        ("instruction sets", f"{', '.join(machine.possible_isas)} (QWICK_ISA forces one)"),
        ("chosen", machine.isa),
        *_kernel_rows(dict(machine.kernel_choice)),
        ("threads", f"{machine.threads}: {machine.threads_reason}"),
        ("memory", f"{machine.available_bytes / 2**30:.1f} GiB available"),
        ("huge pages", _huge_pages(machine.huge_pages)),
        ("versions", ", ".join(_versions())),
    ]
    for name, text in rows:
        _show(name, text)
    try:
        _show("self-test", _self_test())
    except QwickError as error:
        _show("self-test", f"failed: {error}")
        raise typer.Exit(error.exit_code) from None


def _show(name: str, text: str) -> None:
    typer.echo(fill(f"{name:<17} {one_line(text)}", width=110, subsequent_indent=" " * 18, break_on_hyphens=False))


def _kernel_rows(choice: dict[str, str]) -> Iterator[tuple[str, str]]:
    """One row for each instruction set that provides kernels."""
    by_isa: defaultdict[str, list[str]] = defaultdict(list)
    for kernel, isa in choice.items():
        by_isa[isa].append(kernel)
    return ((f"  by {isa}", ", ".join(sorted(kernels))) for isa, kernels in sorted(by_isa.items()))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.processor() or 'unknown'} ({platform.machine()})"


def _huge_pages(state: str) -> str:
    if state in ("always", "madvise"):
        return f"{state}: used for the weights"
    return f"{state}: as root, echo madvise > /sys/kernel/mm/transparent_hugepage/enabled makes decoding faster"


def _versions() -> Iterator[str]:
    from qwick import __version__

    yield f"qwick {__version__}"
    yield f"python {platform.python_version()}"
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} missing"


def _self_test() -> str:
    """The embedded model's answer to a fixed question."""
    from qwick.llm import LLM

    with LLM() as llm:
        answer = llm.chat([{"role": "user", "content": "Who are you?"}], temperature=0, max_tokens=64)
    return f"the embedded model answers: {answer.text.strip()}"
