"""`qwick chat`: talk with a model; each turn reads only what is new."""

import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from qwick.cli.chat_input import Editor, turns_in
from qwick.cli.chat_session import COMMANDS, ChatSession, say
from qwick.cli.options import MachineFlags, ModelName, SamplingFlags, ShowThinking, spread
from qwick.cli.prompt import quoted_files, read_system
from qwick.cli.terminal import is_terminal
from qwick.errors import QwickError
from qwick.store import find_model
from qwick.text.transcript import Transcript

CACHE_MEMORY = 512 << 20  # bytes at most, taken as they are needed: some states and what they have read


@spread
def chat(
    model: ModelName = "pocket",
    *,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="System message; @FILE reads it from a file.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="Put a text file before the first message; may be repeated."),
    ] = None,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Reason before answering; the model's own default when left out."),
    ] = None,
    show_thinking: ShowThinking = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Remember what was typed, for the next chat.")
    ] = True,
    stats: Annotated[
        bool, typer.Option("--stats", help="Show counts and speeds after each answer, on standard error.")
    ] = False,
    json_stats: Annotated[
        bool, typer.Option("--json-stats", help="The same and more as one line of JSON, as qwick run does.")
    ] = False,
    sampling: SamplingFlags,
    machine: MachineFlags,
) -> None:
    """Talk with MODEL. Each turn reads only what is new: the last answer while you type, then your message.

    /help lists the commands: /think, /system, /save, /load, /clear, /stats, /exit. Ctrl-C stops an answer, Ctrl-D
    leaves. Standard input that is no terminal is read as one message or command a line.

    qwick chat

    qwick chat ./Qwen3.5-4B-Q4_K_M.gguf --system "Answer in one sentence."
    """
    find_model(model)
    transcript = Transcript(model, read_system(system), think)
    asking: dict[str, Any] = {**sampling.options(), "stop": sampling.stops}
    preface = quoted_files(file or [])
    is_watched = is_terminal(sys.stdin)
    started = perf_counter()
    with machine.open(model, cache_memory=CACHE_MEMORY) as llm:
        opened = {"model": model, "format": machine.format, "load_seconds": perf_counter() - started}
        session = ChatSession(
            llm,
            transcript,
            asking,
            preface=preface,
            show_thinking=show_thinking,
            shows_stats=stats,
            json_stats=opened if json_stats else None,
            catches=is_watched,
        )
        if is_watched:
            _talk(session, Editor(keeps_history=history, words=list(COMMANDS)))
        else:
            _answer_lines(session)


def _talk(session: ChatSession, editor: Editor) -> None:
    """Until the user leaves; what goes wrong is said, and a question without an answer comes back to be edited."""
    say(f"{session.transcript.model} listens. /help lists the commands, Ctrl-D leaves.")
    draft = ""
    while not session.is_over:
        try:
            with session.reading_ahead():
                text = editor.read(draft)
        except KeyboardInterrupt:
            draft = ""
            continue
        except EOFError:
            return
        draft = text
        try:
            if session.take(text):
                draft = ""
        except QwickError as error:
            say(f"error: {error}")
            draft = "" if text.startswith("/") else text
        except BrokenPipeError:
            raise
        except Exception as error:
            if os.environ.get("QWICK_DEBUG"):
                raise
            say(f"error: something unexpected: {error!r:.300}; /save FILE keeps the chat, please report this")
        except KeyboardInterrupt:  # outside an answer: a long prompt was being tokenised, say
            say("stopped")


def _answer_lines(session: ChatSession) -> None:
    """A script: the first error ends it, since what follows would be said to the wrong chat."""
    if sys.stdin is None or sys.stdin.closed:
        return
    for text in turns_in(sys.stdin.buffer):
        session.take(text)
        if session.is_over:
            return
