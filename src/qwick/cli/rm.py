"""`qwick rm`: delete a model from the local store."""

import sys
from contextlib import suppress
from typing import Annotated

import typer

from qwick.cli.options import complete_entry
from qwick.cli.tables import size_text
from qwick.cli.terminal import is_terminal, one_line
from qwick.errors import UsageError
from qwick.store import entry_named, remove


def rm(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="As `qwick list` shows it.", autocompletion=complete_entry)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a model from the local store, after asking, and what `--pack-cache` has kept of it.

    Of a link only the link is deleted.
    """
    entry = entry_named(name)
    paths = ", ".join(str(path) for path in entry.paths[:3]) + (", …" if len(entry.paths) > 3 else "")
    is_link = all(path.is_symlink() for path in entry.paths)
    what = f"the link {paths}" if is_link else f"{paths} ({size_text(entry.num_bytes)})"
    if not yes:
        if not is_terminal(sys.stdin):
            raise UsageError(f"nobody is there to confirm that {paths} shall be deleted; add --yes")
        if not typer.confirm(one_line(f"delete {what}?"), err=True):
            typer.echo("nothing was deleted", err=True)
            return
    from qwick.weights.pack_cache import forget

    own = [path.resolve() for path in entry.paths if not path.is_symlink()]
    remove(entry)
    with suppress(UsageError):  # doctor says that the cache cannot be read, or what it holds of models that are gone
        forget(own)
    typer.echo(one_line(f"deleted {what}"), err=True)
