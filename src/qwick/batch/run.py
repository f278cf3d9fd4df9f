"""A batch: lines of a file asked many at a time, their answers written in the order of the lines."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic

from qwick.async_llm import AsyncLLM
from qwick.batch.journal import Journal
from qwick.batch.lines import Line, Question, read_line
from qwick.batch.shapes import answered, failed, scored
from qwick.batch.source import Source
from qwick.errors import EngineError, QwickError
from qwick.prompting import SamplingOptions

WINDOW_LINES = 256  # answers that are written at once, at most
WINDOW_SECONDS = 1.0  # and at least so often
MOST_AHEAD = 1024  # lines between the oldest that has no answer yet and the newest that was asked


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a line asks where it does not say."""

    sampling: SamplingOptions
    think: bool | None = None
    stop: tuple[str, ...] = ()


@dataclass(slots=True)
class Counts:
    """Of lines and tokens in this run."""

    answered: int = 0
    failed: int = 0
    generated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Done:
    raw: bytes
    answer: bytes


class Batch:
    """`max_concurrent` lines are asked at a time; `told` is called with the number of lines done, as it grows."""

    def __init__(
        self,
        llm: AsyncLLM,
        model: str,
        defaults: Defaults,
        max_concurrent: int,
        told: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._llm, self._model, self._defaults = llm, model, defaults
        self._max_concurrent, self._told = max_concurrent, told
        self.counts = Counts()

    async def run(self, source: Source, journal: Journal) -> None:
        """All lines that are not done. Answers that are ready are written even when it is interrupted."""
        ready: list[_Done] = []
        written = monotonic()
        try:
            lines = source.lines(journal.lines_done)
            async with aclosing(self._in_order(lines, journal.lines_done + 1)) as answers:
                async for done in answers:
                    ready.append(done)
                    if len(ready) >= WINDOW_LINES or monotonic() - written > WINDOW_SECONDS:
                        self._write(journal, ready)
                        written = monotonic()
        finally:
            self._write(journal, ready)
        journal.finish()

    def _write(self, journal: Journal, ready: list[_Done]) -> None:
        if ready:
            answers = [(done.raw, done.answer) for done in ready]
            ready.clear()  # also when the writing fails: what is on the disk then is the next start's to find out
            journal.append(answers)

    async def _in_order(self, lines: Iterator[bytes], number: int) -> AsyncGenerator[_Done]:
        """One for each line; those that end early wait for those before."""
        pending: deque[asyncio.Task[_Done]] = deque()
        active: set[asyncio.Task[_Done]] = set()
        try:
            while True:
                while len(active) < self._max_concurrent and len(pending) < MOST_AHEAD:
                    if (raw := next(lines, None)) is None:
                        break
                    task = asyncio.create_task(self._one(number, raw))
                    number += 1
                    pending.append(task)
                    active.add(task)
                    task.add_done_callback(active.discard)
                if not pending:
                    return
                if not pending[0].done():
                    await asyncio.wait(active, return_when=asyncio.FIRST_COMPLETED)
                while pending and pending[0].done():
                    yield pending.popleft().result()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _one(self, number: int, raw: bytes) -> _Done:
        line = read_line(number, raw)
        if line.question is None:
            self.counts.failed += 1
            answer = failed(line, line.error)
        else:
            answer = await self._asked(line, line.question)
        self._told(1)
        return _Done(raw, answer)

    async def _asked(self, line: Line, question: Question) -> bytes:
        """Once more when the engine failed: most likely it was a neighbour's fault."""
        error: QwickError | None = None
        for _ in range(2):
            try:
                answer = await (self._scored(line, question) if question.choices else self._answered(line, question))
            except EngineError as found:
                error = found
            except QwickError as found:
                error = found
                break
            else:
                self.counts.answered += 1
                return answer
        self.counts.failed += 1
        return failed(line, error or "")

    async def _scored(self, line: Line, question: Question) -> bytes:
        messages, think = question.messages or (), question.think or False
        return scored(line, await self._llm.score(question.choices, question.prompt, messages=messages, think=think))

    async def _answered(self, line: Line, question: Question) -> bytes:
        sampling: SamplingOptions = {**self._defaults.sampling, **question.sampling}  # type: ignore[typeddict-item]
        stop = self._defaults.stop if question.stop is None else question.stop
        if question.messages is None:
            stream = self._llm.generate(question.prompt or "", stop=stop, **question.options, **sampling)
        else:
            think = self._defaults.think if question.think is None else question.think
            stream = self._llm.chat(question.messages, think=think, stop=stop, **question.options, **sampling)
        completion = await stream.completion()
        self.counts.generated_tokens += completion.stats.generated_tokens
        return answered(line, completion, self._model)
