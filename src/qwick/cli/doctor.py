"""`qwick doctor`: what this machine can do, what was chosen, and why."""

import json
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwick.cli.predict import show_predictions
from qwick.cli.tables import size_text
from qwick.cli.terminal import one_line
from qwick.errors import QwickError

if TYPE_CHECKING:
    from qwick.thread_choice import Record
    from qwick.weights.pack_cache import Entry

PACKAGES = ("numpy", "tokenizers", "jinja2", "typer", "rich")


def doctor(
    *,
    predict: Annotated[
        bool, typer.Option("--predict", help="Predict speed, memory and start of every size on this machine.")
    ] = False,
    clear_pack_cache: Annotated[
        bool, typer.Option("--clear-pack-cache", help="Delete what `--pack-cache` has kept; nothing else is done.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show the processor, the chosen kernels, threads, memory and versions, and let the embedded model say a word."""
    if clear_pack_cache:
        _clear_pack_cache(as_json=as_json)
        return
    if predict:
        show_predictions(as_json=as_json)
        return
    from qwick.ops.native import describe_machine
    from qwick.thread_choice import records
    from qwick.weights.pack_cache import packs, packs_folder

    machine, known = describe_machine(), records()
    if as_json:
        found = {"processor": _processor()} | asdict(machine) | {"tuned_threads": [asdict(record) for record in known]}
        found["pack_cache"] = {"folder": str(packs_folder()), "entries": [_as_json(entry) for entry in packs()]}
        found |= {"versions": dict(_versions()), "answer": _answer()}
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [
        ("processor", _processor()),
        ("instruction sets", f"{', '.join(machine.possible_isas)} (QWICK_ISA forces one)"),
        ("chosen", machine.isa),
        *_kernel_rows(machine.kernel_choice),
        ("threads", f"{machine.threads}: {machine.threads_reason}"),
        *_tuned_rows(known),
        ("memory", f"{machine.available_bytes / 2**30:.1f} GiB available"),
        ("huge pages", _huge_pages(machine.huge_pages)),
        *_pack_rows(packs(), str(packs_folder())),
        ("versions", ", ".join(f"{name} {number}" for name, number in _versions())),
    ]
    for name, text in rows:
        _show(name, text)
    try:
        _show("self-test", f"the embedded model answers: {_answer()}")
    except QwickError as error:
        _show("self-test", f"failed: {error}")
        raise typer.Exit(error.exit_code) from None


def _show(name: str, text: str) -> None:
    typer.echo(fill(f"{name:<17} {one_line(text)}", width=110, subsequent_indent=" " * 18, break_on_hyphens=False))


def _kernel_rows(choice: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """One row for each instruction set that provides kernels; those of several weight families together."""
    by_isa: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for kernel, isa in sorted(choice.items()):
        name, _, family = kernel.partition(".")
        by_isa[isa][name].append(family)
    for isa, kernels in sorted(by_isa.items()):
        listed = (f"{name} ({' '.join(families)})" if families[0] else name for name, families in kernels.items())
        yield f"  by {isa}", ", ".join(listed)


def _tuned_rows(known: "Sequence[Record]") -> Iterator[tuple[str, str]]:
    """What was found fastest for each model, where a model was used long enough."""
    from qwick.thread_choice import records_folder

    for record in known:
        kinds = (("answers", record.threads), ("prompts", record.threads_batch))
        found = ", ".join(f"{count} for {kind}" for kind, count in kinds if count is not None)
        yield f"  of {one_line(record.model)}", f"{found} (found by trial; --threads says otherwise)"
    if known:
        yield "  kept in", str(records_folder())


def _pack_rows(kept: "Sequence[Entry]", folder: str) -> Iterator[tuple[str, str]]:
    total = size_text(sum(entry.num_bytes for entry in kept))
    clear = "; --clear-pack-cache deletes them" if kept else ""
    yield "pack cache", f"{len(kept)} models, {total} in {folder}{clear}"
    for entry in kept:
        model = f"{entry.model} ({entry.format or 'as in the file'})" if entry.model else "not finished, or damaged"
        yield f"  {size_text(entry.num_bytes)}", model


def _clear_pack_cache(*, as_json: bool) -> None:
    from qwick.weights.pack_cache import clear, packs_folder

    gone = clear()
    if as_json:
        typer.echo(
            json.dumps({"folder": str(packs_folder()), "deleted": [_as_json(entry) for entry in gone]}, indent=2)
        )
        return
    total = size_text(sum(entry.num_bytes for entry in gone))
    typer.echo(one_line(f"deleted {len(gone)} models, {total}, from {packs_folder()}"))


def _as_json(entry: "Entry") -> dict[str, Any]:
    return asdict(entry) | {"path": str(entry.path)}


def _processor() -> str:
    from qwick.thread_choice import processor_name

    return f"{processor_name() or platform.processor() or 'unknown'} ({platform.machine()})"


def _huge_pages(state: str) -> str:
    if state in ("always", "madvise"):
        return f"{state}: used for the weights"
    return f"{state}: as root, echo madvise > /sys/kernel/mm/transparent_hugepage/enabled makes decoding faster"


def _versions() -> Iterator[tuple[str, str]]:
    from importlib.metadata import PackageNotFoundError, version  # 15 ms that only this command needs

    from qwick import __version__

    yield "qwick", __version__
    yield "python", platform.python_version()
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "missing"


def _answer() -> str:
    """The embedded model's to a fixed question."""
    from qwick.llm import LLM

    with LLM() as llm:
        answer = llm.chat([{"role": "user", "content": "Who are you?"}], temperature=0, max_tokens=64)
    return answer.text.strip()
