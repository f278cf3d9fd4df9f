"""What the user of a chat says: from a line editor on a terminal, else from the lines of standard input.

A message may have several lines: where a line ends with a backslash, or between two lots of three quotes. In the editor
Alt-Enter begins a new line too, and a paste is never cut.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from qwick.cli.terminal import is_terminal
from qwick.errors import UsageError

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

QUOTES = '"""'
PROMPT, MORE = ">>> ", "... "


def is_open(text: str) -> bool:
    """Whether `text` begins with three quotes that nothing closes yet."""
    text = text.strip()
    return text.startswith(QUOTES) and not (len(text) >= 2 * len(QUOTES) and text.endswith(QUOTES))


def unquoted(text: str) -> str:
    """`text` without three quotes around it; what was never closed loses those at the beginning."""
    stripped = text.strip()
    if not stripped.startswith(QUOTES):
        return text
    return stripped.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")


def turns_in(lines: Iterable[bytes]) -> Iterator[str]:
    """The messages and commands that `lines` hold, quotes still around them. Raises UsageError when it is no UTF-8."""
    pending: list[str] = []
    for number, data in enumerate(lines, 1):
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise UsageError(f"line {number:,} of standard input is not UTF-8 text; convert it") from None
        pending.append(line)
        if is_open("\n".join(pending)):
            continue
        if line.endswith("\\") and not pending[0].strip().startswith(QUOTES):
            pending[-1] = line[:-1]
            continue
        yield "\n".join(pending)
        pending.clear()
    if pending:
        yield "\n".join(pending)


def history_path() -> Path:
    """Where the lines of earlier chats are. Raises OSError, RuntimeError when there is no home."""
    from qwick.thread_choice import state_folder

    return state_folder() / "chat_history"


class Editor:
    """Reads messages from the terminal. `keeps_history`: they are remembered in a file that only the user can read."""

    def __init__(self, *, keeps_history: bool, words: Sequence[str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.output import create_output

        self._session = PromptSession[str](
            PROMPT,
            prompt_continuation=MORE,
            multiline=True,
            history=_open_history() if keeps_history else None,
            key_bindings=_bindings(),
            completer=WordCompleter(list(words), sentence=True),
            complete_while_typing=False,
            enable_suspend=True,
            # Standard output may be a file. Given no output, the library knows by itself what a dumb terminal takes.
            output=None if is_terminal(sys.stdout) else create_output(always_prefer_tty=True),
        )

    def read(self, draft: str = "") -> str:
        """The next message; `draft` is in the line already. Raises KeyboardInterrupt (Ctrl-C), EOFError (Ctrl-D)."""
        return self._session.prompt(default=draft)


def _bindings() -> "KeyBindings":
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("enter")
    def enter(event: "KeyPressEvent") -> None:
        buffer = event.current_buffer
        at_end = not buffer.document.text_after_cursor.strip()
        if at_end and buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def alt_enter(event: "KeyPressEvent") -> None:
        event.current_buffer.insert_text("\n")

    del enter, alt_enter  # known to the bindings now
    return bindings


def _open_history() -> "History":
    """The history file; one in memory where there can be no file."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class CarefulHistory(FileHistory):
        def store_string(self, string: str) -> None:
            with suppress(OSError, UnicodeError):  # neither a full disk nor a broken character must end a chat
                super().store_string(string)

    try:
        path = history_path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except (OSError, RuntimeError):
        return InMemoryHistory()
    return CarefulHistory(path)
