"""Text in, text out, for many callers at once: asyncio in front, the engine in a process of its own.

>>> async with AsyncLLM("pocket") as llm:  # doctest: +SKIP
...     async for piece in llm.chat([{"role": "user", "content": "What is 17 + 25?"}]):
...         print(piece, end="")
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

from qwick.async_stream import AsyncStream
from qwick.engine.constraint import Grammar
from qwick.engine.memory_plan import resident_bytes
from qwick.engine.process import HANG_SECONDS, EngineProcess
from qwick.engine.protocol import Ready
from qwick.engine.request import Request
from qwick.errors import UsageError
from qwick.model.config import ModelConfig
from qwick.model.source import LoadProgress, open_source
from qwick.opening import EngineOptions
from qwick.prompting import Asked, Message, Prompt, Prompting, SamplingOptions, Scores
from qwick.store import POCKET, find_model
from qwick.text.tools import ToolChoice, checked_tools

T = TypeVar("T")


class AsyncLLM:
    """A model behind asyncio, in one event loop: `start` opens it, `close` ends it, `async with` does both.

    options       of the engine, as for `LLM`; `max_sequences` answers at a time, more wait
    progress      called with (bytes done, bytes in all) while weights load, also after a restart
    hang_seconds  an engine that is silent so long while there is work is ended, and started again
    memory_beside bytes of `options.memory` that this process may still grow by; what it has is counted anyway
    child         the main module of the engine's process, to be run with `python -m`

    A fault of the engine, even one that ends its process, fails the answers that it touched with EngineError; others
    wait for the next process, which starts at once.
    """

    def __init__(
        self,
        path: str | Path = POCKET,
        options: EngineOptions | None = None,
        *,
        progress: LoadProgress | None = None,
        hang_seconds: float = HANG_SECONDS,
        memory_beside: int = 0,
        child: str = "qwick.engine_child",
    ) -> None:
        self._name, self._options, self._child = str(path), options or EngineOptions(), child
        self._progress, self._hang_seconds = progress, hang_seconds
        self._memory_beside = memory_beside
        self._texts = ThreadPoolExecutor(1, "prompts")  # one: a tokenizer learns as it encodes
        self._process: EngineProcess | None = None
        self._prompting: Prompting | None = None
        self._ready: Ready | None = None

    async def start(self) -> Self:
        """Read the model. Raises what `LLM` does, or EngineError."""
        found = find_model(self._name)
        preparing = asyncio.get_running_loop().run_in_executor(self._texts, self._prepare, found)
        try:
            if self._options.memory is not None:  # a cap is for both processes, so this one grows first
                await asyncio.wait([preparing])
                self._options = replace(self._options, memory_elsewhere=resident_bytes() + self._memory_beside)
            options = (self._name, self._options)
            self._process = EngineProcess(
                self._child, options, progress=self._progress, hang_seconds=self._hang_seconds
            )
            self._ready = await self._process.start()
            self._prompting = await preparing
        except BaseException:
            await self._abandon(preparing)
            raise
        return self

    async def close(self) -> None:
        """End the engine; answers under way fail. Idempotent."""
        process, self._process = self._process, None
        prompting, self._prompting = self._prompting, None
        if process is not None:
            await process.close()
        if prompting is not None:
            prompting.close()
        self._texts.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def generate(
        self,
        prompt: Prompt,
        *,
        stop: str | Sequence[str] = (),
        grammar: Grammar | None = None,
        loop_guard: bool = False,
        logprobs: int | None = None,
        prompt_logprobs_from: int | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncStream:
        """Continue a text or token ids as they are; see LLM.generate.

        loop_guard            the text is ended when it only repeats itself
        logprobs              of each token, with those of so many likeliest ones: `Completion.scored`
        prompt_logprobs_from  and of the prompt's own tokens from this place (at least 1) on: `prompt_scored`
        """
        prompting = self.prompting

        def ask() -> Asked:
            asked = prompting.continuation(prompt, stop, sampling, grammar).scored(logprobs, prompt_logprobs_from)
            return replace(asked, request=replace(asked.request, loop_guard=loop_guard))

        return self._stream(ask)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        stop: str | Sequence[str] = (),
        grammar: Grammar | None = None,
        thinking_budget: int | None = None,
        loop_guard: bool = True,
        logprobs: int | None = None,
        continues: bool = False,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncStream:
        """Answer `messages` by the model's chat template; see LLM.chat. `logprobs`: as in `generate`.

        continues  the last message is the beginning of the answer, which goes on from there
        """
        prompting = self.prompting

        def ask() -> Asked:
            wanted = checked_tools(tools, tool_choice, parallel=parallel_tool_calls)
            asked = prompting.chat(
                messages,
                think,
                stop,
                sampling,
                wanted,
                grammar,
                thinking_budget,
                loop_guard=loop_guard,
                continues=continues,
            )
            return asked.scored(logprobs)

        return self._stream(ask)

    async def encode(
        self,
        asked: str | Sequence[Message],
        *,
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        thinking_budget: int | None = None,
        continues: bool = False,
    ) -> list[int]:
        """The ids of a text (control tokens written in it count as such), or of a chat's whole prompt, as of `chat`."""
        prompting = self.prompting

        def ids() -> list[int]:
            if isinstance(asked, str):
                return prompting.tokenizer.encode(asked, allow_special=True)
            wanted = checked_tools(tools, tool_choice, parallel=parallel_tool_calls)
            chat = prompting.chat(asked, think, (), {}, wanted, None, thinking_budget, continues=continues)
            return list(chat.request.token_ids)

        return await asyncio.get_running_loop().run_in_executor(self._texts, ids)

    async def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, without control tokens. Raises UsageError for what is no id of this model."""
        size = self.config.vocab_size
        if wrong := [token_id for token_id in token_ids if not 0 <= token_id < size]:
            raise UsageError(f"tokens has {wrong[0]}; ids of this model are 0 to {size - 1}")
        decode = self.prompting.tokenizer.decode
        return await asyncio.get_running_loop().run_in_executor(self._texts, decode, token_ids)

    async def score(
        self,
        choices: Sequence[str],
        prompt: Prompt | None = None,
        *,
        messages: Sequence[Message] = (),
        think: bool = False,
    ) -> Scores:
        """How likely each of `choices` follows `prompt`, or begins the answer to `messages`; see LLM.score."""
        asking = partial(self.prompting.scorings, prompt, messages, think, choices)
        requests = await asyncio.get_running_loop().run_in_executor(self._texts, asking)
        tickets = [self.process.submit(request) for request in requests]
        try:
            events = [event for ticket in tickets for event in await ticket.events()]
        finally:
            for ticket in tickets:
                ticket.cancel()
        return Scores.of(choices, ((event.prompt_scored or (), event.stats) for event in events))

    def remember(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Have a chat that ends with an answer read as history when nothing else is to do; see LLM.remember."""
        prompting, process = self.prompting, self.process

        def told(history: "asyncio.Future[Request | None]") -> None:
            if not history.cancelled() and history.exception() is None and (request := history.result()):
                process.remember(request)

        asking = partial(prompting.history, messages, think, checked_tools(tools))
        asyncio.get_running_loop().run_in_executor(self._texts, asking).add_done_callback(told)

    @property
    def prompting(self) -> Prompting:
        """Template, tokenizer and sampling defaults of the model."""
        return _opened(self._prompting)

    @property
    def config(self) -> ModelConfig:
        """Of the network."""
        return self.prompting.config

    @property
    def context_len(self) -> int:
        """Most tokens of one prompt and its answer."""
        return self.ready.config.context_len

    @property
    def ready(self) -> Ready:
        """What the engine said of itself when it was open: its limits, threads, bytes of memory."""
        return _opened(self._ready)

    @property
    def process(self) -> EngineProcess:
        """The engine's: whether it is ready, what it has counted, how often it was started."""
        return _opened(self._process)

    def _stream(self, ask: Callable[[], Asked]) -> AsyncStream:
        def in_thread() -> "asyncio.Future[Asked]":
            _ = self.process  # still open
            return asyncio.get_running_loop().run_in_executor(self._texts, ask)

        return AsyncStream(in_thread, lambda asked: self.process.submit(asked.request))

    def _prepare(self, found: Path) -> Prompting:
        with open_source(found) as source:
            prompting = Prompting(found, source, keeps=self._options.keeps)
            try:
                prompting.prepare()
            except BaseException:
                prompting.close()
                raise
        return prompting

    async def _abandon(self, preparing: "asyncio.Future[Prompting]") -> None:
        """Opening failed on one side; the other is ended."""
        (prompting,) = await asyncio.gather(preparing, return_exceptions=True)
        if isinstance(prompting, Prompting):
            prompting.close()
        await self.close()


def _opened(part: T | None) -> T:
    if part is None:
        raise UsageError("this AsyncLLM is not open: `async with AsyncLLM(…) as llm`, or `await llm.start()`")
    return part
