"""/v1/completions: prompts continued as they are, echoed and scored if asked."""

from collections.abc import AsyncGenerator, Sequence

from qwick.api.answers import Json, ObjectName, TextLogprobs, text_choice, usage_of
from qwick.api.requests import CompletionRequest
from qwick.async_llm import AsyncLLM
from qwick.async_stream import AsyncStream
from qwick.errors import UsageError
from qwick.sampling.logprobs import Scored
from qwick.server.asking import Bursts, warnings_behind
from qwick.server.stream import Chunks
from qwick.streams import Burst, Completion

DEFAULT_MAX_TOKENS = 16  # as OpenAI's


class CompletionQuestion:
    """Raises UsageError for what does not fit together.

    `max_tokens` 0 generates nothing: with `echo` and `logprobs` the prompt is scored. One token is drawn and dropped.
    """

    form: ObjectName = "text_completion"
    prefix = "cmpl"

    def __init__(self, llm: AsyncLLM, body: CompletionRequest) -> None:
        self._llm, self._text_of = llm, llm.prompting.tokenizer.token_bytes
        self._body, self._prompts = body, body.prompts()
        self._per_prompt = body.n or 1
        self._max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        self._echo, self._top = bool(body.echo), body.logprobs
        if not self._max_tokens and not self._echo:
            raise UsageError("max_tokens is 0, and without echo there is nothing to answer")
        self._stops, self._grammar = body.stops(), body.constraint()
        self.count = len(self._prompts) * self._per_prompt
        self.warnings: Sequence[str] = body.warnings()
        self.is_streamed, self.includes_usage = bool(body.stream), body.includes_usage
        self._ids: list[Sequence[int]] = []
        self._texts: list[str] = []

    async def ask(self) -> Sequence[AsyncStream]:
        streams: list[AsyncStream] = []
        for prompt in self._prompts:
            if self._echo:
                ids = await self._llm.encode(prompt) if isinstance(prompt, str) else prompt
                text = prompt if isinstance(prompt, str) else await self._llm.decode(ids)
                self._ids.append(ids)
                self._texts.append(text)
            for _ in range(self._per_prompt):
                streams.append(self._stream(self._ids[-1] if self._echo else prompt, len(streams)))
        return streams

    def choice(self, index: int, completion: Completion) -> Json:
        text, logprobs, lists = completion.text, None, TextLogprobs(self._text_of)
        ids, scored = completion.token_ids, completion.scored
        if not self._max_tokens:
            text, ids, scored = "", (), ()
        if self._echo:
            text = self._texts[index // self._per_prompt] + text
        if self._top is not None:
            echoed, scores = self._echoed(index, completion.prompt_scored)
            logprobs = lists.push([*echoed, *ids], [*scores, *scored])
        return text_choice(index, text, self._ended(completion), logprobs)

    async def frames(self, index: int, answer: Bursts, chunks: Chunks) -> AsyncGenerator[bytes]:
        lists = TextLogprobs(self._text_of)
        is_first = True
        async for burst in answer.all():
            if is_first and self._echo:
                yield self._echo_frame(index, burst, lists, chunks)
            is_first = False
            if self._max_tokens and (frame := self._frame(index, burst, lists, chunks)):
                yield frame
        completion = await answer.completion()
        warnings = warnings_behind(self, index, completion)
        yield chunks.choice(index, {"text": ""}, warnings, finish_reason=self._ended(completion))

    def used(self, completions: Sequence[Completion]) -> Json:
        used = usage_of([completion.stats for completion in completions], self._per_prompt)
        if not self._max_tokens:
            used |= {"completion_tokens": 0, "total_tokens": used["prompt_tokens"]}
        return used

    def done(self, completions: Sequence[Completion]) -> None:
        """Nothing more: what comes next is not known."""

    def _stream(self, prompt: str | Sequence[int], index: int) -> AsyncStream:
        scored_from = 1 if self._echo and self._top is not None else None
        sampling = self._body.sampling(index % self._per_prompt, self._max_tokens or 1)
        return self._llm.generate(
            prompt,
            stop=self._stops,
            grammar=self._grammar,
            loop_guard=bool(self._body.loop_guard),
            logprobs=self._top,
            prompt_logprobs_from=scored_from,
            **sampling,
        )

    def _ended(self, completion: Completion) -> str:
        return completion.finish_reason if self._max_tokens else "length"

    def _echoed(self, index: int, scored: Sequence[Scored]) -> tuple[Sequence[int], list[Scored | None]]:
        """The prompt's ids and what is known of them."""
        return (self._ids[index // self._per_prompt], [None, *scored]) if self._echo else ((), [])

    def _echo_frame(self, index: int, burst: Burst, lists: TextLogprobs, chunks: Chunks) -> bytes:
        text = self._texts[index // self._per_prompt]
        if self._top is None:
            return chunks.text(index, "text", text)
        return chunks.choice(index, {"text": text}, logprobs=lists.push(*self._echoed(index, burst.prompt_scored)))

    def _frame(self, index: int, burst: Burst, lists: TextLogprobs, chunks: Chunks) -> bytes:
        text = "".join(segment.text for segment in burst.segments)
        if self._top is None:
            return chunks.text(index, "text", text) if text else b""
        return chunks.choice(index, {"text": text}, logprobs=lists.push(burst.token_ids, burst.scored))
