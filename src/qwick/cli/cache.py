"""`qwick cache explain`: what a chat's turns, or a file of requests, would find in memory, and why no more."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from qwick.cli.options import byte_count
from qwick.cli.tables import show_table
from qwick.cli.terminal import one_line
from qwick.errors import UsageError
from qwick.store import find_model
from qwick.text.transcript import Transcript

if TYPE_CHECKING:
    from qwick.engine.rehearsal import Rehearsal, Rehearsed
    from qwick.engine.request import Request
    from qwick.prompting import Prompting

_SHOWN = 12  # tokens on either side of where a prompt parts from what was read
CONTEXT_LEN = 1 << 18


class Turn(NamedTuple):
    """A request, and the chat with its answer, if that is known: what idle time would read."""

    messages: list[Any]
    think: bool | None
    history: list[Any] | None


def explain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A chat that /save wrote, or requests, one a line.")],
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="As of `qwick run`.")] = "pocket",
    *,
    cache_memory: Annotated[str, typer.Option(metavar="1GiB", help="What may be remembered.")] = "1GiB",
    idle: Annotated[
        bool, typer.Option("--idle/--no-idle", help="Whether there is time to read answers before the next question.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a request.")] = False,
) -> None:
    """Say for each turn how much of its prompt is in memory, and why not more. Nothing is computed.

    FILE is a chat saved by /save, or lines of {"messages": […]} as an application sent them: a clock in the system
    prompt, a list of tools in another order, an answer that comes back changed are all seen here.

    qwick cache explain chat.json --model ./Qwen3.5-0.8B
    """
    turns = _turns(file)
    rehearsal, prompting = _open(model, byte_count("--cache-memory", cache_memory))
    rows: list[list[str]] = []
    try:
        for number, turn in enumerate(turns, 1):
            request = prompting.chat(turn.messages, turn.think, (), {}).request
            seen = rehearsal.read(request, num_instead=_SHOWN)
            why = _why(seen, request, prompting)
            if as_json:
                typer.echo(json.dumps({"request": number, **_facts(seen), "why": why}))
            left = seen.prompt_tokens - seen.cached_tokens
            rows.append([str(number), f"{seen.prompt_tokens:,}", f"{seen.cached_tokens:,}", f"{left:,}", why])
            if idle and turn.history and (history := prompting.history(turn.history, turn.think)):
                rehearsal.read(history)
    finally:
        prompting.close()
    if not as_json:
        show_table(["request", "tokens", "in memory", "to read", "why"], rows, rows)


def _facts(seen: "Rehearsed") -> dict[str, Any]:
    reason = None if seen.miss is None else seen.miss.reason.value
    at = None if seen.miss is None else seen.miss.at
    return {"prompt_tokens": seen.prompt_tokens, "cached_tokens": seen.cached_tokens, "reason": reason, "at": at}


def _why(seen: "Rehearsed", request: "Request", prompting: "Prompting") -> str:
    if seen.miss is None:
        return "goes on from there"
    why = str(seen.miss)
    if seen.instead and seen.miss.reason.value == "diverged":
        at = seen.miss.at
        now, before = (prompting.tokenizer.decode(ids) for ids in (request.token_ids[at : at + _SHOWN], seen.instead))
        after = prompting.tokenizer.decode(request.token_ids[max(at - _SHOWN, 0) : at])
        why += f": after {one_line(after)!r} it says {one_line(now)!r}, before it was {one_line(before)!r}"
    return why


def _open(model: str, cache_memory: int) -> "tuple[Rehearsal, Prompting]":
    from qwick.cache.spec import CacheSpec
    from qwick.engine.config import EngineConfig
    from qwick.engine.rehearsal import Rehearsal
    from qwick.model.source import open_source
    from qwick.prompting import Prompting

    found = find_model(model)
    with open_source(found) as source:
        prompting = Prompting(found, source, keeps=True)
        prompting.prepare()
        spec = CacheSpec(source.config.cache_shape(num_pages=0, num_slots=0))
        context_len = min(source.config.max_position_embeddings, CONTEXT_LEN)
    return Rehearsal(spec, EngineConfig(context_len, cache_memory=max(cache_memory, 1))), prompting


def _turns(file: Path) -> list[Turn]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}; give a saved chat or a file of requests") from None
    if b'"qwick_chat"' in data[:4096]:
        return list(_turns_of(Transcript.load(file)))
    return list(_turns_in(file, data))


def _turns_of(chat: Transcript) -> Iterator[Turn]:
    turns, chat.turns = chat.turns, []
    for turn in turns:
        messages = chat.messages(turn.question)
        chat.turns.append(turn)
        yield Turn(messages, chat.think, list(chat.history))


def _turns_in(file: Path, data: bytes) -> Iterator[Turn]:
    from qwick.batch.lines import read_line

    for number, text in enumerate(data.splitlines(), 1):
        if not text.strip():
            continue
        line = read_line(number, text)
        if line.question is None or line.question.messages is None:
            raise UsageError(f"{file}, line {number}: {line.error or 'there are no messages'}")
        yield Turn(line.question.messages, line.question.think, None)
