"""A chat as it is remembered, and as a file: what was asked, what was answered."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EINVAL
from pathlib import Path
from typing import Any, cast

from qwick.errors import UsageError

VERSION = 1
LIMIT_BYTES = 64 << 20  # far more text than any context holds
_KEYS = {"qwick_chat", "model", "system", "think", "messages"}
_MESSAGE_KEYS = {"role", "content", "reasoning_content"}


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer; `reasoning` is for the reader, no later prompt repeats it."""

    question: str
    answer: str
    reasoning: str = ""


@dataclass(slots=True)
class Transcript:
    """think: whether the model reasons first; None: as it does by default."""

    model: str
    system: str | None = None
    think: bool | None = None
    turns: list[Turn] = field(default_factory=list[Turn])

    @property
    def history(self) -> list[dict[str, str]]:
        """What was said so far. Reasoning is left out, as the official templates do."""
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for turn in self.turns:
            messages += _messages_of(turn)
        return messages

    def messages(self, question: str) -> list[dict[str, str]]:
        """What a chat template needs to ask `question` now."""
        return [*self.history, {"role": "user", "content": question}]

    def save(self, path: Path) -> None:
        """Write a JSON file, whole or not at all, for its owner only. Raises UsageError.

        A file that is there already is replaced only if it is such a chat.
        """
        try:
            if path.exists():
                self.load(path)
        except UsageError:
            raise UsageError(f"{_shown(path)} exists and is no saved chat; give another name") from None
        except (OSError, ValueError):
            pass  # no name of a file: writing says why
        messages = [message for turn in self.turns for message in _messages_of(turn, reasoning=True)]
        content = {
            "qwick_chat": VERSION,
            "model": self.model,
            "system": self.system,
            "think": self.think,
            "messages": messages,
        }
        try:
            _write_whole(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot write {_shown(path)}: {_reason(error)}; give another place") from None

    @classmethod
    def load(cls, path: Path) -> "Transcript":
        """What `save` wrote. Raises UsageError that says what is wrong."""
        try:
            if path.is_fifo():
                raise OSError(EINVAL, "it is a pipe")
            with path.open("rb") as file:
                data = file.read(LIMIT_BYTES + 1)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {_shown(path)}: {_reason(error)}; give the path of a saved chat") from None
        try:
            return cls._of(data)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise UsageError(f"{_shown(path)} is no saved chat: {reason}") from None

    @classmethod
    def _of(cls, data: bytes) -> "Transcript":
        """Raises ValueError."""
        if len(data) > LIMIT_BYTES:
            raise ValueError(f"it is larger than {LIMIT_BYTES >> 20} MiB")
        content = _object(json.loads(data.decode()), "it", _KEYS)
        if content.get("qwick_chat") != VERSION:
            raise ValueError(f"qwick_chat is {content.get('qwick_chat')!r:.40}, not {VERSION}")
        think = content.get("think")
        if think is not None and not isinstance(think, bool):
            raise ValueError(f"think is {think!r:.40}, not true, false or null")
        system = content.get("system")
        return cls(
            _text(content.get("model"), "model"),
            None if system is None else _text(system, "system"),
            think,
            _turns(content.get("messages")),
        )


def _messages_of(turn: Turn, *, reasoning: bool = False) -> list[dict[str, str]]:
    answer = {"role": "assistant", "content": turn.answer}
    if reasoning and turn.reasoning:
        answer["reasoning_content"] = turn.reasoning
    return [{"role": "user", "content": turn.question}, answer]


def _turns(value: object) -> list[Turn]:
    if not isinstance(value, list):
        raise ValueError("messages is not a list")
    messages = [
        _object(message, f"messages[{i}]", _MESSAGE_KEYS) for i, message in enumerate(cast("list[object]", value))
    ]
    for i, message in enumerate(messages):
        wanted = ("user", "assistant")[i % 2]
        if message.get("role") != wanted:
            raise ValueError(f"messages[{i}].role is {message.get('role')!r:.40}, not {wanted!r}")
    if len(messages) % 2:
        raise ValueError("the last question has no answer")
    texts = [_text(message.get("content"), f"messages[{i}].content") for i, message in enumerate(messages)]
    thoughts = [
        _text(message.get("reasoning_content", ""), f"messages[{i}].reasoning_content")
        for i, message in enumerate(messages)
    ]
    return [Turn(*turn) for turn in zip(texts[::2], texts[1::2], thoughts[1::2], strict=True)]


def _object(value: object, name: str, keys: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    found = cast("dict[str, Any]", value)
    for key in found:
        if key not in keys:
            raise ValueError(f"{name} has a key {key!r:.40}, which means nothing here")
    return found


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r:.40}, not a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate, which is no Unicode") from None
    return value


def _write_whole(path: Path, text: str) -> None:
    """First beside it, then in its place: a full disk or a crash leaves what was there."""
    import tempfile  # rather here than at every start of the command line

    target = path.resolve()  # of a link, what it points to
    descriptor, name = tempfile.mkstemp(
        prefix=f".{target.name[:100]}.", dir=target.parent
    )  # readable by its owner only
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _reason(error: OSError | ValueError) -> object:
    """Of a ValueError its text: a NUL in a name."""
    return error.strerror if isinstance(error, OSError) else error


def _shown(path: Path) -> str:
    return f"{str(path)!a:.200}"
