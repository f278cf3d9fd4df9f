"""What one training or held-out conversation is, and which are held out."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

HELD_OUT_SHARE = 10  # one key in ten

Message = Mapping[str, Any]
Tool = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation in the official template's messages, whose last one is the only right answer.

    key       what must be new in the held-out part (the unordered pair of a sum, the word to be reversed, …); of a
              conversation with several questions one a line, of which none may be held out
    messages  assistant ones have `content`, or `tool_calls`, and in `reasoning_content` what is thought before
    tools     offered functions, as `tools=` takes them
    """

    task: str
    key: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()

    @property
    def held_out(self) -> bool:
        return any(map(is_held_out, self.key.split("\n")))

    @property
    def question(self) -> str:
        return str(self.messages[-2]["content"])

    @property
    def answer(self) -> str:
        return str(self.messages[-1]["content"])


def taught(draw: Callable[[], Example]) -> Example:
    """The first one drawn that is not held out."""
    while (example := draw()).held_out:
        pass
    return example


def is_held_out(key: str) -> bool:
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "little") % HELD_OUT_SHARE == 0


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str, thought: str = "") -> Message:
    return {"role": "assistant", "content": content, "reasoning_content": thought}


def exchange(task: str, key: str, question: str, answer: str, thought: str) -> Example:
    """One question, one answer."""
    return Example(task, f"{task} {key}", (user(question), assistant(answer, thought)))
