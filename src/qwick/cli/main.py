"""The command `qwick`.

Exit codes: 0 done; 1 unexpected; 2 usage; 3 damaged model file; 4 config not supported; 5 does not fit; 6 chat
template; 7 kernels (errors.py has the list); 130 Ctrl-C; 141 the reader of the output went away.
"""

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from qwick.cli.doctor import doctor
from qwick.cli.inspect import inspect
from qwick.cli.run import run
from qwick.cli.terminal import one_line
from qwick.errors import QwickError

INTERRUPTED, PIPE_CLOSED = 130, 141  # 128 + the number of the signal, as shells report it


class Commands(TyperGroup):
    """Every failure becomes one line and an exit code, for all commands in one place."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except QwickError as error:
            typer.echo(one_line(f"qwick: error: {error}"), err=True)
            raise typer.Exit(error.exit_code) from None
        except MemoryError:
            typer.echo("qwick: error: not enough memory; try --format q8_0, or a smaller --ctx-size", err=True)
            raise typer.Exit(5) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit is silent
            raise typer.Exit(PIPE_CLOSED) from None


commands = typer.Typer(
    name="qwick",
    cls=Commands,
    help="Runs the Qwen3.5 small models on the computer you already have.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands.command()(run)
commands.command()(inspect)
commands.command()(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        from qwick import __version__

        typer.echo(f"qwick {__version__}")
        raise typer.Exit


@commands.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options of `qwick` itself."""


def app() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a model writes more than some terminals can show
    try:
        commands()
    except KeyboardInterrupt:  # before or after a command
        sys.exit(INTERRUPTED)
