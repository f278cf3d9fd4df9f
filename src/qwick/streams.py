"""Answers as they grow: an engine's events turned into text, piece by piece."""

import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from qwick.engine.engine import Engine
from qwick.engine.request import Event, Finish, Request, Stats
from qwick.errors import UsageError
from qwick.sampling.logprobs import Scored
from qwick.text.answer import Answer
from qwick.text.segments import AnySegment, Kind
from qwick.text.tool_calls import ToolCall

Ending: TypeAlias = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer that has ended. `token_ids` holds every generated id, the stop token too; `text` ends before the stop.

    `reasoning` is what a model that thinks wrote before it; a raw prompt's continuation is `text` only. `tool_calls`
    are the calls it made, if tools were offered; finish_reason is `tool_calls` when there are some. `scored` and
    `prompt_scored` are log-probabilities (sampling/logprobs.py) of token_ids and of the prompt's, if asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "tool_calls", "cancelled"]
    stats: Stats
    reasoning: str = ""
    scored: tuple[Scored, ...] = ()
    prompt_scored: tuple[Scored, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Burst:
    """What came of an answer at once: pieces of its text, and the tokens, with their log-probabilities if asked for."""

    segments: tuple[AnySegment, ...]
    token_ids: tuple[int, ...]
    scored: tuple[Scored, ...]
    prompt_scored: tuple[Scored, ...] = ()


class GrowingAnswer:
    """An answer and the events that it grows by.

    waiting     pieces of its text that nobody has taken yet
    completion  None until it has ended
    """

    def __init__(self, answer: Answer, prompt_tokens: int) -> None:
        self.waiting: deque[AnySegment] = deque()
        self.completion: Completion | None = None
        self._answer = answer
        self._token_ids: list[int] = []
        self._scored: list[Scored] = []
        self._prompt_scored: tuple[Scored, ...] = ()
        self._num_burst = 0  # tokens that `burst` has given
        self._stats = Stats(prompt_tokens=prompt_tokens)

    def take(self, event: Event) -> bool:
        """Digest one token; True when a stop string ended the answer, so that the engine should end it too."""
        self._token_ids.append(event.token_id)
        self._stats = event.stats
        if event.scored is not None:
            self._scored.append(event.scored)
        if event.prompt_scored is not None:
            self._prompt_scored = event.prompt_scored
        if event.finish != Finish.STOP:
            self.waiting += self._answer.push(event.token_id)
        if event.finish is None and not self._answer.stopped:
            return False
        self.end("stop" if self._answer.stopped or event.finish == Finish.STOP else "length")
        return event.finish is None

    def burst(self) -> Burst:
        """What came since the last one."""
        segments, start = tuple(self.waiting), self._num_burst
        self.waiting.clear()
        self._num_burst = len(self._token_ids)
        prompt_scored = self._prompt_scored if start == 0 else ()
        return Burst(segments, tuple(self._token_ids[start:]), tuple(self._scored[start:]), prompt_scored)

    def end(self, reason: Ending) -> None:
        """No more tokens come."""
        answer = self._answer
        self.waiting += answer.finish(cut=reason != "stop")
        self.completion = Completion(
            answer.text,
            tuple(self._token_ids),
            "tool_calls" if reason == "stop" and answer.tool_calls else reason,
            self._stats,
            answer.reasoning,
            tuple(self._scored),
            self._prompt_scored,
            answer.tool_calls,
        )


class Stream(Iterator[str]):
    """The pieces of one answer's text, as soon as they are certain; `segments` gives reasoning and tool calls too.

    Dropping it, or `close`, ends the generation; `stop` ends it with what there is as the completion.
    """

    def __init__(self, streams: "Streams", request: Request, answer: Answer) -> None:
        self._streams = streams
        self._growing = GrowingAnswer(answer, len(request.token_ids))
        self._stop_wanted = False
        self._sequence_id = streams.add(self, request)

    def __next__(self) -> str:
        for segment in self.segments():
            if segment.kind is Kind.CONTENT:
                return segment.text
        raise StopIteration

    def segments(self) -> Iterator[AnySegment]:
        """The pieces with their kinds, reasoning first, and tool calls as they grow (CallSegment).

        Each piece comes once, here or by iterating the stream.
        """
        growing = self._growing
        while growing.waiting or growing.completion is None:
            if growing.waiting:
                yield growing.waiting.popleft()
            else:
                self._advance()

    @property
    def completion(self) -> Completion:
        """The whole answer; generates what is still missing."""
        while self._growing.completion is None:
            self._advance()
        return self._growing.completion

    def stop(self) -> None:
        """End the answer after the step under way; its completion says `cancelled`. Fit for a signal handler."""
        self._stop_wanted = True

    def close(self) -> None:
        """Stop generating. What was not finished has no completion."""
        self._streams.cancel(self._sequence_id)

    def take(self, event: Event) -> bool:
        """As GrowingAnswer.take."""
        return self._growing.take(event)

    def _advance(self) -> None:
        if self._stop_wanted:
            self._streams.cancel(self._sequence_id)
            self._growing.end("cancelled")
        else:
            self._streams.step(self._sequence_id)


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
        """One step of the engine, for `sequence_id` and all others; each stream gets what is its own.

        When the step fails or is interrupted all streams are closed: the engine has ended their sequences.
        """
        if sequence_id not in self._by_id:
            raise UsageError("the answer was closed before it was finished")
        try:
            events = self._open_engine().step()
        except BaseException:
            for other in list(self._by_id):
                self.cancel(other)
            raise
        for event in events:
            stream = self._by_id.get(event.sequence_id)
            if stream is None or stream.take(event):
                self.cancel(event.sequence_id)

    def remember(self, request: Request) -> None:
        self._open_engine().remember(request)

    def idle(self) -> bool:
        """A piece of what was to be read at leisure; False when nothing is left, or answers are under way."""
        return self._engine is not None and self._engine.idle_step()

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
