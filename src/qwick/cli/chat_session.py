"""One chat under way: questions and commands in, answers and notes out."""

import json
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import typer

from qwick.cli.answer import AnswerWriter
from qwick.cli.chat_input import unquoted
from qwick.cli.stats import measured, stats_line
from qwick.cli.terminal import one_line
from qwick.errors import CapacityError, QwickError, UsageError
from qwick.text.transcript import Transcript, Turn

if TYPE_CHECKING:
    from qwick.llm import LLM
    from qwick.streams import Completion, Stream


@dataclass
class ChatSession:
    """Raises QwickError for a question or command that cannot be; nothing has changed then.

    asking      what every call of `LLM.chat` gets: sampling, stop
    preface     goes before the first question that gets an answer: files
    json_stats  what `--json-stats` writes beside an answer's counts; None: nothing
    catches     whether Ctrl-C stops an answer instead of the program
    """

    llm: "LLM"
    transcript: Transcript
    asking: dict[str, Any] = field(default_factory=dict[str, Any])
    preface: str = ""
    show_thinking: bool | None = None
    shows_stats: bool = False
    json_stats: Mapping[str, Any] | None = None
    catches: bool = False
    is_over: bool = False
    last: "Completion | None" = None

    def take(self, text: str) -> bool:
        """A message or a command; False when there was no answer, so that the question may be asked again."""
        if not text.strip():
            return True
        if text.startswith("/"):
            self._command(text)
            return True
        return self._ask(unquoted(text))

    def _ask(self, question: str) -> bool:
        question = "\n\n".join(part for part in (self.preface, question) if part)
        messages = self.transcript.messages(question)
        try:
            stream = self.llm.chat(messages, think=self.transcript.think, stream=True, **self.asking)
        except CapacityError:
            raise CapacityError(
                f"the chat and this question do not fit the context of {self.llm.context_len:,} tokens; "
                "/save FILE keeps the chat, /clear begins a new one, --ctx-size makes room"
            ) from None
        with _stopping(stream) if self.catches else _nothing():
            AnswerWriter(show_thinking=self.show_thinking).write(stream.segments())
        completion = self.last = stream.completion
        if self.shows_stats:
            say(stats_line(completion))
        if self.json_stats is not None:
            typer.echo(json.dumps({**self.json_stats, **measured(completion, self.llm.backend)}), err=True)
        is_answered = bool(completion.text) or completion.finish_reason == "stop"
        if is_answered:
            self.transcript.turns.append(Turn(question, completion.text, completion.reasoning))
            self.llm.remember(self.transcript.history, think=self.transcript.think)
            self.preface = ""
        self._say_how_it_ended(completion, is_answered=is_answered)
        return is_answered

    @contextmanager
    def reading_ahead(self) -> Generator[None]:
        """While the user writes, the last answer is read as history, so that only the question is left then."""
        ended = Event()

        def read() -> None:
            with suppress(QwickError):  # the next turn reads it itself, and says what is wrong
                while not ended.is_set() and self.llm.idle():
                    pass

        reader = Thread(target=read, daemon=True)
        reader.start()
        try:
            yield
        finally:
            ended.set()
            reader.join()

    def _say_how_it_ended(self, completion: "Completion", *, is_answered: bool) -> None:
        stats = completion.stats
        if completion.finish_reason == "cancelled":
            say("stopped" if is_answered else "stopped before an answer; the question was not kept")
        elif completion.finish_reason == "length":
            is_full = stats.prompt_tokens + stats.generated_tokens >= self.llm.context_len
            what = f"the context of {self.llm.context_len:,} tokens is full" if is_full else "--max-tokens is reached"
            remedy = "; /save FILE keeps the chat, /clear begins a new one, --ctx-size makes room" if is_full else ""
            end = "the answer is cut off" if is_answered else "there is no answer yet; try /think off"
            say(f"{what}: {end}{remedy}")

    def _command(self, text: str) -> None:
        name, *rest = text.split(maxsplit=1)
        command = COMMANDS.get(ALIASES.get(name, name))
        if command is None:
            raise UsageError(
                f"there is no command {name!a:.40}; /help lists them (a message that begins with / needs a space first)"
            )
        command.run(self, rest[0].strip() if rest else "")

    def help(self, _: str) -> None:
        for name, command in COMMANDS.items():
            say(f"  {usage(name):<20}{command.help}")
        say('  Alt-Enter, or \\ at the end of a line, begins a new line; """ begins and ends several lines.')
        say("  Ctrl-C stops an answer or clears the line; Ctrl-D leaves.")

    def think(self, argument: str) -> None:
        if argument:
            wanted = _switch("/think", argument)
            if wanted and not self.llm.template.can_think:
                raise UsageError("this model's chat template has no switch for thinking")
            self.transcript.think = wanted
        think = self.llm.thinks_by_default if self.transcript.think is None else self.transcript.think
        say(f"thinking is {_shown(think)}")

    def system(self, argument: str) -> None:
        if argument:
            self.transcript.system = None if argument == "-" else unquoted(argument)
        system = self.transcript.system
        say("there is no system message" if system is None else f"system message: {system}")

    def save(self, argument: str) -> None:
        path = _path("/save", argument)
        self.transcript.save(path)
        say(f"saved {_count(self.transcript)} to {path}")

    def load(self, argument: str) -> None:
        path = _path("/load", argument)
        loaded = Transcript.load(path)
        if loaded.think and not self.llm.template.can_think:
            loaded.think = None
        model = self.transcript.model
        other = "" if loaded.model == model else f"; it was with {loaded.model}, now {model} answers"
        loaded.model = model
        self.transcript = loaded
        say(f"loaded {_count(loaded)} from {path}{other}")

    def clear(self, _: str) -> None:
        count = _count(self.transcript)
        self.transcript.turns.clear()
        say(f"forgot {count}")

    def stats(self, argument: str) -> None:
        if argument:
            self.shows_stats = _switch("/stats", argument)
            say(f"counts and speeds after each answer: {_shown(self.shows_stats)}")
        else:
            say("there was no answer yet" if self.last is None else stats_line(self.last))

    def leave(self, _: str) -> None:
        self.is_over = True


Action: TypeAlias = Callable[[ChatSession, str], None]


class Command(NamedTuple):
    """What /help says of a command, and what it does."""

    argument: str
    help: str
    run: Action


COMMANDS = {
    "/help": Command("", "this list", ChatSession.help),
    "/think": Command("[on|off]", "whether the model reasons before it answers", ChatSession.think),
    "/system": Command("[TEXT|-]", "the system message: show, set, remove", ChatSession.system),
    "/save": Command("FILE", "write the chat as JSON", ChatSession.save),
    "/load": Command("FILE", "go on with a saved chat", ChatSession.load),
    "/clear": Command("", "begin a new chat; the system message stays", ChatSession.clear),
    "/stats": Command("[on|off]", "counts and speeds of the last answer, or after each", ChatSession.stats),
    "/exit": Command("", "leave; also /bye, /quit", ChatSession.leave),
}
ALIASES = {"/bye": "/exit", "/quit": "/exit"}


def usage(name: str) -> str:
    """A command and what may follow it."""
    return f"{name} {COMMANDS[name].argument}".rstrip()


def say(text: str) -> None:
    """A note to the user, apart from the answers."""
    typer.echo(one_line(text), err=True)


@contextmanager
def _stopping(stream: "Stream") -> Generator[None]:
    """Ctrl-C ends the answer after the step under way, so that what was computed stays good for the next turn."""

    def stop(_signal: int, _frame: object) -> None:
        stream.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _nothing() -> Generator[None]:
    yield


def _switch(command: str, argument: str) -> bool:
    if argument not in ("on", "off"):
        raise UsageError(f"{command} is on or off, not {argument!a:.40}")
    return argument == "on"


def _shown(is_on: bool) -> str:
    return "on" if is_on else "off"


def _path(command: str, argument: str) -> Path:
    if not argument:
        raise UsageError(f"{command} needs a file: {command} chat.json")
    try:
        return Path(argument).expanduser()
    except RuntimeError as error:  # a user that is not known
        raise UsageError(f"{command} {argument!a:.100}: {error}") from None


def _count(transcript: Transcript) -> str:
    count = len(transcript.turns)
    return f"{count:,} question{'' if count == 1 else 's'}"
