"""What is asked: words of the command line, files and standard input, made one prompt."""

import contextlib
import re
import select
import sys
from collections.abc import Sequence
from pathlib import Path

from qwick.cli.terminal import is_terminal, one_line, warn
from qwick.errors import UsageError

PATIENCE = 2.0  # seconds without anything on standard input before we say that we wait
MAX_BYTES = 8 << 20  # of one file; 262,144 tokens, the longest context, are about 1 MiB of text
FENCE = re.compile("^ *(`{3,})", re.MULTILINE)


def read_prompt(words: Sequence[str], files: Sequence[Path], model: str) -> str:
    """Files, then standard input when it is no terminal, then the words: as Ollama does, the question comes last.

    Raises UsageError when there is nothing, or when something is no text.
    """
    if not words and not files and is_terminal(sys.stdin):
        raise UsageError(
            f'no prompt; write it after the model (qwick run {model} "Hello"), or talk: qwick chat {model}'
        )
    parts = [quoted_files(files)]
    if not is_terminal(sys.stdin):
        parts.append(_read_standard_input())
    parts.append(" ".join(words))
    text = "\n\n".join(part for part in parts if part.strip())
    if not text:
        raise UsageError(f'the prompt is empty; write it after the model (qwick run {model} "Hello")')
    return text


def read_system(text: str | None) -> str | None:
    """The text itself, or of the file named after @."""
    if text is None or not text.startswith("@"):
        return text
    return _read(Path(text[1:]), "--system").strip()


def _read_standard_input() -> str:
    """To its end. A pipe that somebody forgot to close would keep us for ever, so a long wait is told."""
    with contextlib.suppress(OSError, ValueError, TypeError):  # no standard input, or one without a descriptor
        if not select.select([sys.stdin], [], [], PATIENCE)[0]:
            warn("waiting for standard input to end; < /dev/null if there is nothing to add")
    data = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin and not sys.stdin.closed else b""
    return _decoded(data, "standard input").removesuffix("\n").removesuffix("\r")


def quoted_files(paths: Sequence[Path]) -> str:
    """What the files say, each under its name. Raises UsageError."""
    return "\n\n".join(_quoted(path) for path in paths)


def _quoted(path: Path) -> str:
    """The file's name and its text between fences that the text does not have."""
    text = _read(path, "--file")
    longest = max((len(match[1]) for match in FENCE.finditer(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{one_line(path.name)}:\n{fence}\n{text.removesuffix(chr(10))}\n{fence}"


def _read(path: Path, option: str) -> str:
    shown = f"{option} {str(path)!a:.100}"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read {shown}: {reason}; give the path of a text file") from None
    return _decoded(data, shown)


def _decoded(data: bytes, what: str) -> str:
    if len(data) > MAX_BYTES:
        raise UsageError(f"{what} is larger than {MAX_BYTES >> 20} MiB, more than any context holds; cut it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8 text (byte {error.start:,}); convert it, or give a text file") from None
