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
from qwick.errors import QwickError, UsageError

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

    machine, known = describe_machine(), records()
    if as_json:
        found = {"processor": _processor()} | asdict(machine) | {"tuned_threads": [asdict(record) for record in known]}
        found["pack_cache"] = _packs_as_json()
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
        *_pack_rows(),
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


def _pack_rows() -> Iterator[tuple[str, str]]:
    from qwick.weights.pack_cache import packs, packs_folder

    try:
        kept, folder = packs(), packs_folder()
    except UsageError as error:
        yield "pack cache", str(error)
        return
    num_whole = sum(entry.model is not None for entry in kept)
    total = f"{_count(num_whole, 'model')}, {size_text(sum(entry.num_bytes for entry in kept))} in {folder}"
    rest = f", {_count(len(kept) - num_whole, 'file')} unfinished or damaged" if num_whole < len(kept) else ""
    yield "pack cache", total + rest + ("; --clear-pack-cache deletes all" if kept else "")
    for entry in kept:
        yield f"  {size_text(entry.num_bytes)}", _pack_text(entry)


def _pack_text(entry: "Entry") -> str:
    if entry.model is None:
        return "unfinished or damaged"
    return f"{entry.model} ({entry.format or 'as in the file'}){', which is gone' if entry.is_orphan else ''}"


def _packs_as_json() -> dict[str, Any]:
    from qwick.weights.pack_cache import packs, packs_folder

    try:
        entries = [asdict(entry) | {"path": str(entry.path)} for entry in packs()]
        return {"folder": str(packs_folder()), "entries": entries}
    except UsageError as error:
        return {"error": str(error)}


def _clear_pack_cache(*, as_json: bool) -> None:
    from qwick.weights.pack_cache import clear, packs_folder

    gone = clear()
    if as_json:
        deleted = [{"path": str(path), "num_bytes": num_bytes} for path, num_bytes in gone]
        typer.echo(json.dumps({"folder": str(packs_folder()), "deleted": deleted}, indent=2))
        return
    total = size_text(sum(num_bytes for _, num_bytes in gone))
    typer.echo(one_line(f"deleted {_count(len(gone), 'file')}, {total}, from {packs_folder()}"))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


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
