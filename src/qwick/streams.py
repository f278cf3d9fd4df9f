"""Answers as they grow: an engine's events turned into text, piece by piece."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from qwick.engine.engine import Engine
from qwick.engine.request import Event, Finish, Request, Stats
from qwick.errors import UsageError
from qwick.text.answer import Answer
from qwick.text.segments import Kind, Segment


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer. `token_ids` holds every generated id, the stop token too; `text` ends before the stop.

    `reasoning` is what a model that thinks wrote before it; a raw prompt's continuation is `text` only.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    stats: Stats
    reasoning: str = ""


class Stream(Iterator[str]):
    """The pieces of one answer's text, as soon as they are certain; `segments` gives the reasoning too.

    Dropping it, or `close`, ends the generation.
    """

    def __init__(self, streams: "Streams", request: Request, answer: Answer) -> None:
        self._streams = streams
        self._answer = answer
        self._waiting: list[Segment] = []
        self._token_ids: list[int] = []
        self._completion: Completion | None = None
        self._sequence_id = streams.add(self, request)

    def __next__(self) -> str:
        for kind, text in self.segments():
            if kind is Kind.CONTENT:
                return text
        raise StopIteration

    def segments(self) -> Iterator[Segment]:
        """The pieces with their kinds, reasoning first. Each piece comes once, here or by iterating the stream."""
        while self._waiting or self._completion is None:
            if self._waiting:
                yield self._waiting.pop(0)
            else:
                self._streams.step(self._sequence_id)

    @property
    def completion(self) -> Completion:
        """The whole answer; generates what is still missing."""
        while self._completion is None:
            self._streams.step(self._sequence_id)
        return self._completion

    def close(self) -> None:
        """Stop generating. What was not finished has no completion."""
        self._streams.cancel(self._sequence_id)

    def take(self, event: Event) -> bool:
        """Digest one token; True when a stop string ended the answer, so that the engine should end it too."""
        self._token_ids.append(event.token_id)
        answer = self._answer
        if event.finish != Finish.STOP:
            self._waiting += answer.push(event.token_id)
        if event.finish is None and not answer.stopped:
            return False
        self._waiting += answer.finish()
        reason = "stop" if answer.stopped or event.finish == Finish.STOP else "length"
        self._completion = Completion(answer.text, tuple(self._token_ids), reason, event.stats, answer.reasoning)
        return event.finish is None


class Streams:
    """An engine and the streams it feeds. Streams are held weakly: one that nobody wants any more ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine | None = engine
        self._by_id: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()

    def add(self, stream: Stream, request: Request) -> int:
        sequence_id = self._open_engine().add(request)
        self._by_id[sequence_id] = stream
        weakref.finalize(stream, self.cancel, sequence_id).atexit = False
        return sequence_id

    def step(self, sequence_id: int) -> None:
        """One step of the engine, for `sequence_id` and all others; each stream gets what is its own."""
        if sequence_id not in self._by_id:
            raise UsageError("the answer was closed before it was finished")
        for event in self._open_engine().step():
            stream = self._by_id.get(event.sequence_id)
            if stream is None or stream.take(event):
                self.cancel(event.sequence_id)

    def cancel(self, sequence_id: int) -> None:
        self._by_id.pop(sequence_id, None)
        if self._engine is not None:
            self._engine.cancel(sequence_id)

    def close(self) -> None:
        self._engine = None

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise UsageError("this LLM is closed; make a new one")
        return self._engine
