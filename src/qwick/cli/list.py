"""`qwick list`: the models of the local store."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from qwick.cli.tables import ago_text, count_text, show_table, size_text
from qwick.errors import QwickError
from qwick.store import Entry, entries, find_model, models_folder


@dataclass(frozen=True, slots=True)
class _Row:
    """`format` and `parameters` are None for what only looks like a model; `error` then says why."""

    entry: Entry
    format: str | None
    parameters: int | None
    error: str | None = None


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON array, with paths and what is wrong.")] = False,
) -> None:
    """Show the models of the local store: name, size on disk, format, parameters, age.

    Piped on, the columns are separated by tabs, the size is in bytes and the time in ISO 8601.
    """
    rows = [_row(entry) for entry in entries()]
    if as_json:
        typer.echo(json.dumps([_object(row) for row in rows], indent=2))
        return
    if not rows:
        typer.echo(
            f"no models in {models_folder()}: put a folder or a .gguf file there; `pocket` is built in", err=True
        )
    head = ("NAME", "SIZE", "FORMAT", "PARAMETERS", "MODIFIED")
    show_table(head, [_cells(row) for row in rows], [_plain(row) for row in rows])


def _row(entry: Entry) -> _Row:
    from qwick.describe import describe

    try:
        model = describe(find_model(entry.paths[0]))
    except QwickError as error:
        return _Row(entry, None, None, str(error))
    return _Row(entry, model.mixture, model.parameters)


def _cells(row: _Row) -> tuple[str, ...]:
    parameters = "?" if row.parameters is None else count_text(row.parameters)
    size = size_text(row.entry.num_bytes)
    return row.entry.name, size, row.format or "unreadable", parameters, ago_text(row.entry.modified)


def _plain(row: _Row) -> tuple[str, ...]:
    return row.entry.name, str(row.entry.num_bytes), row.format or "", str(row.parameters or ""), _iso(row.entry)


def _object(row: _Row) -> dict[str, object]:
    return {
        "name": row.entry.name,
        "paths": [str(path) for path in row.entry.paths],
        "bytes": row.entry.num_bytes,
        "format": row.format,
        "parameters": row.parameters,
        "modified": _iso(row.entry),
        "error": row.error,
    }


def _iso(entry: Entry) -> str:
    return datetime.fromtimestamp(entry.modified, UTC).isoformat(timespec="seconds")
