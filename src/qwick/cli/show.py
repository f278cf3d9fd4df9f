"""`qwick show`: a model on a card."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwick.cli.options import ModelName
from qwick.cli.tables import count_text, size_text
from qwick.cli.terminal import one_line
from qwick.store import find_model

if TYPE_CHECKING:
    from qwick.describe import Description


def show(
    model: ModelName,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show what a model is: size, format, context, thinking, sampling defaults, files. `qwick inspect` tells more."""
    from qwick.describe import describe

    described = describe(find_model(model))
    if as_json:
        typer.echo(json.dumps(_object(described), indent=2))
        return
    for line in _lines(described):
        typer.echo(one_line(line))


def _object(model: "Description") -> dict[str, Any]:
    return {
        "path": str(model.path),
        "architecture": "qwen3_5",
        "parameters": model.parameters,
        "has_mtp": model.config.has_mtp,
        "context_len": model.config.max_position_embeddings,
        "hidden_size": model.config.hidden_size,
        "layers": model.config.num_layers,
        "format": model.mixture,
        "template_sha256": model.template_sha256,
        "template_is_official": model.template_is_official,
        "can_think": model.can_think,
        "thinks_by_default": model.thinks_by_default,
        "sampling": dict(model.sampling),
        "files": dict(model.files),
    }


def _lines(model: "Description") -> Iterator[str]:
    config = model.config
    drafts = ", MTP block for drafts" if config.has_mtp else ""
    template = "official" if model.template_is_official else "its own"
    thinking = f"{'on' if model.thinks_by_default else 'off'} unless asked" if model.can_think else "no"
    yield "model"
    yield f"  path          {model.path}"
    yield f"  architecture  Qwen3.5, text{drafts}"
    yield f"  parameters    {count_text(model.parameters)}"
    yield f"  format        {model.mixture}"
    yield f"  context       {config.max_position_embeddings:,} tokens"
    yield f"  embedding     {config.hidden_size:,}"
    yield f"  layers        {config.num_layers}"
    yield f"  template      {template}"
    yield f"  thinking      {thinking}"
    yield "sampling unless asked otherwise"
    for name, value in model.sampling.items():
        yield f"  {name:<19} {value}"
    yield "files"
    width = max(map(len, model.files))
    for name, size in model.files.items():
        yield f"  {name:<{width}}  {size_text(size)}"
