"""Every failure of a command becomes one line on standard error and an exit code."""

import os
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import typer

from qwick.cli.terminal import complain, warn
from qwick.errors import CapacityError, QwickError, QwickWarning, UsageError

INTERRUPTED, PIPE_CLOSED = 130, 141  # 128 + the number of the signal, as shells report it

EXIT_CODES = {
    0: "done",
    1: "unexpected: a full disk, or a bug (QWICK_DEBUG=1 shows where)",
    2: "usage: an option, a path or a name that does not exist or fit",
    3: "a model file is damaged or incomplete",
    4: "not a network that qwick runs",
    5: "it does not fit: context or memory",
    6: "the chat template failed or refused",
    7: "the kernels cannot run here as asked",
    8: "a check of `qwick verify` failed",
    9: "the engine's process failed while it worked on a request",
    INTERRUPTED: "Ctrl-C",
    PIPE_CLOSED: "the reader of the output went away",
}

_CommandLineError: type[Exception] = typer.BadParameter.__mro__[1]  # click's UsageError, wherever typer keeps it


@contextmanager
def failures_as_exit_codes() -> Generator[None]:
    """Around whatever a command does. QWICK_DEBUG lets unexpected errors through, with their traceback."""
    try:
        yield
    except QwickError as error:
        complain(str(error))
        raise typer.Exit(error.exit_code) from None
    except _CommandLineError as error:
        complain(_about_command_line(error))
        raise typer.Exit(UsageError.exit_code) from None
    except MemoryError:
        complain("not enough memory; try --format q8_0, or a smaller --ctx-size")
        raise typer.Exit(CapacityError.exit_code) from None
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C or Ctrl-D instead of an answer to a question
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        _discard_output()
        raise typer.Exit(PIPE_CLOSED) from None
    except typer.Exit:
        raise
    except Exception as error:
        if os.environ.get("QWICK_DEBUG"):
            raise
        complain(_about_unexpected(error))
        if isinstance(error, OSError):
            _discard_output()
        raise typer.Exit(1) from None


@contextmanager
def warnings_as_lines() -> Generator[None]:
    """Our own warnings as one line each; those of libraries as Python shows them."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", QwickWarning)
        others = warnings.showwarning

        def show(message: Warning | str, *details: Any, **more: Any) -> None:
            if isinstance(message, QwickWarning):
                warn(str(message))
            else:
                others(message, *details, **more)

        warnings.showwarning = show
        yield


def _about_command_line(error: Exception) -> str:
    """What typer found wrong, and where the right thing is written."""
    message = str(getattr(error, "format_message", error.__str__)()).removesuffix(".")
    context = getattr(error, "ctx", None)
    return f"{message}; {'qwick' if context is None else context.command_path} --help shows what it takes"


def _about_unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the output'}: {error.strerror}; see that there is room and permission"
    what = f"{type(error).__name__}: {error}"
    return f"something unexpected: {what:.300}; set QWICK_DEBUG=1 to see where, and please report it"


def _discard_output() -> None:
    """So that the flush at exit is silent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
