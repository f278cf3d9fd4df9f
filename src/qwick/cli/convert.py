"""`qwick convert`: a model as one GGUF file in another format."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwick.cli.options import ModelName
from qwick.cli.tables import size_text
from qwick.cli.terminal import loading_bar, one_line
from qwick.errors import UsageError

if TYPE_CHECKING:
    from qwick.quantize.convert import Converted

SUFFIX = ".gguf"
FORMATS = "Q4_K_M, Q4_K_S, Q4_0, Q5_K_M, Q5_K_S, Q6_K, Q8_0, BF16, F16 or F32."
_TO = "A path that ends in .gguf, or a name for the local store."


def _complete_format(incomplete: str) -> list[str]:
    from qwick.quantize.recipes import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete.upper())]


def convert(
    model: ModelName,
    to: Annotated[str, typer.Argument(metavar="TO", help=_TO)],
    *,
    format: Annotated[str, typer.Option(metavar="NAME", help=FORMATS, autocompletion=_complete_format)] = "Q4_K_M",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, metavar="N", help="Default: one per core.")] = None,
) -> None:
    """Write a model as one GGUF file in another format, for qwick, llama.cpp and others.

    TO is a path that ends in .gguf, or a name for the local store. The text network is written, its MTP block too; a
    vision tower is left out. Formats mix types as llama.cpp's of the same name do.

    qwick convert ./Qwen3.5-0.8B qwen-small --format Q4_K_M

    qwick convert ./Qwen3.5-0.8B ~/qwen-small-q8.gguf --format Q8_0
    """
    from qwick.model.source import open_source
    from qwick.quantize.convert import convert as convert_model
    from qwick.quantize.recipes import recipe_named
    from qwick.store import find_model
    from qwick.weights.gguf_writer import check_writable

    recipe = recipe_named(format)
    found, path = find_model(model), _target(to, force=force)
    check_writable(path, overwrite=force)
    with open_source(found) as source, loading_bar(f"converting to {recipe.name}") as progress:
        done = convert_model(source, path, recipe, overwrite=force, threads=threads, progress=progress)
    for line in _lines(done):
        typer.echo(one_line(line))


def _target(name: str, *, force: bool) -> Path:
    """A path if it looks like one, else a place in the local store."""
    from qwick.store import path_for_new

    path = Path(name).expanduser()
    if path.suffix.lower() == SUFFIX:
        return path
    if len(path.parts) != 1:
        raise UsageError(f"{name!a:.100} does not end in {SUFFIX}, by which programs know such files; add it")
    return path_for_new(name, replace=force)


def _lines(done: "Converted") -> list[str]:
    sizes = (
        f"{size_text(done.num_bytes)} from {size_text(done.source_bytes)}, {done.bits_per_weight:.2f} bits per weight"
    )
    tensors = ", ".join(f"{count} {name}" for name, count in sorted(done.tensors.items()))
    lines = [f"{done.path}: {sizes}; tensors: {tensors}; {done.seconds:.1f} s"]
    if done.left_out:
        what = "the vision tower" if any("vis" in name for name in done.left_out) else done.left_out[0]
        lines.append(f"left out: {len(done.left_out)} tensors that are no part of the text network ({what})")
    if done.was_coarse:
        lines.append("note: the source was quantised already; from the original weights less is lost")
    return lines
