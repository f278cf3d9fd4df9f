"""The command `qwick`: its subcommands, and how the process starts and ends."""

import io
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from qwick.cli.batch import batch
from qwick.cli.bench import bench
from qwick.cli.cache import explain
from qwick.cli.chat import chat
from qwick.cli.convert import convert
from qwick.cli.doctor import doctor
from qwick.cli.failures import EXIT_CODES, INTERRUPTED, failures_as_exit_codes, warnings_as_lines
from qwick.cli.inspect import inspect
from qwick.cli.list import list_models
from qwick.cli.rm import rm
from qwick.cli.run import run
from qwick.cli.serve import serve
from qwick.cli.show import show
from qwick.cli.verify import verify
from qwick.errors import UsageError

ENVIRONMENT = {
    "QWICK_MODELS": "the folder of the local store; without it `~/.local/share/qwick/models`, or under `XDG_DATA_HOME`",
    "QWICK_PACKS": "the folder of `--pack-cache`; without it `~/.cache/qwick/packed`, or under `XDG_CACHE_HOME`",
    "QWICK_ISA": "forces an instruction set of `qwick doctor`'s list",
    "QWICK_DEBUG": "shows the traceback of an unexpected error",
    "XDG_STATE_HOME": "`qwick/chat_history` there holds what was typed into `qwick chat`, `qwick/threads` how many "
    "threads were found fastest; without it `~/.local/state`",
    "NO_COLOR": "no colours",
}


class Commands(TyperGroup):
    """All commands fail alike."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with failures_as_exit_codes():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with warnings_as_lines(), failures_as_exit_codes():
            return super().invoke(ctx)


commands = typer.Typer(
    name="qwick",
    cls=Commands,
    help="Runs the Qwen3.5 small models on the computer you already have.",
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _flowing(command: Callable[..., None]) -> str:
    """The docstring with its paragraphs in one line each, since typer keeps line breaks."""
    return "\n\n".join(" ".join(text.split()) for text in (command.__doc__ or "").split("\n\n"))


for panel, group in {
    "Answers": {"run": run, "chat": chat, "batch": batch, "serve": serve},
    "Models": {
        "list": list_models,
        "show": show,
        "inspect": inspect,
        "convert": convert,
        "verify": verify,
        "rm": rm,
    },
    "This machine": {"bench": bench, "doctor": doctor},
}.items():
    for name, command in group.items():
        commands.command(name, rich_help_panel=panel, help=_flowing(command))(command)


cache = typer.Typer(no_args_is_help=True, help="What the engine remembers of prompts.")
cache.callback()(lambda: None)  # so that `explain`, the only one so far, has its name
cache.command("explain", help=_flowing(explain))(explain)
commands.add_typer(cache, name="cache", rich_help_panel="Models")


@commands.command("help", rich_help_panel="This machine")
def show_help(
    context: typer.Context,
    command: Annotated[str | None, typer.Argument(metavar="COMMAND", help="Of which command.")] = None,
) -> None:
    """Show how a command is used."""
    root: Any = context.find_root()
    if command is None:
        typer.echo(root.get_help())
        return
    found = root.command.get_command(root, command)
    if found is None:
        known: list[str] = root.command.list_commands(root)
        near = get_close_matches(command, known, n=1) or known
        raise UsageError(f"there is no command {command!a:.50}; did you mean {' or '.join(near)}?")
    found.make_context(command, ["--help"], parent=root)  # shows it and exits


def _show_version(wanted: bool) -> None:
    if wanted:
        from qwick import __version__

        typer.echo(f"qwick {__version__}")
        raise typer.Exit


@commands.callback()
def options(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options of `qwick` itself."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def app() -> None:
    """Run the command line of this process."""
    # numpy's BLAS, which nothing here needs, would start threads that spin for 0.1 s beside the start of a model.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a model writes more than some terminals can show
    try:
        commands()
    except KeyboardInterrupt:  # before or after a command
        sys.exit(INTERRUPTED)
