"""/v1/chat/completions."""

from collections.abc import AsyncGenerator, Sequence

from qwick.api.answers import Json, ObjectName, assistant_message, chat_choice, chat_logprobs, usage_of
from qwick.api.requests import ChatRequest
from qwick.async_llm import AsyncLLM
from qwick.async_stream import AsyncStream
from qwick.server.asking import Bursts, warnings_behind
from qwick.server.stream import Chunks
from qwick.streams import Burst, Completion
from qwick.text.segments import AnySegment, CallSegment, Kind, Segment

FIELDS = {Kind.REASONING: "reasoning_content", Kind.CONTENT: "content"}


class ChatQuestion:
    """`think`, `loop_guard`: the server's own, for chats that do not say. Raises UsageError for what does not fit."""

    form: ObjectName = "chat.completion"
    prefix = "chatcmpl"

    def __init__(self, llm: AsyncLLM, body: ChatRequest, *, think: bool | None, loop_guard: bool) -> None:
        self._llm, self._text_of = llm, llm.prompting.tokenizer.token_bytes
        self._messages = body.plain_messages()
        self._asked = body.asked(body.messages, think)
        self._guards = loop_guard if body.loop_guard is None else body.loop_guard
        self._grammar, self._top, self._stops = body.constraint(), body.top, body.stops()
        self.count = body.n or 1
        self._sampling = [body.sampling(index, body.longest) for index in range(self.count)]
        self.warnings: Sequence[str] = body.warnings()
        self.is_streamed, self.includes_usage = bool(body.stream), body.includes_usage

    async def ask(self) -> Sequence[AsyncStream]:
        return [
            self._llm.chat(
                self._messages,
                grammar=self._grammar,
                loop_guard=self._guards,
                stop=self._stops,
                logprobs=self._top,
                **self._asked,
                **sampling,
            )
            for sampling in self._sampling
        ]

    def choice(self, index: int, completion: Completion) -> Json:
        logprobs = None
        if self._top is not None:
            logprobs = chat_logprobs(completion.token_ids, completion.scored, self._text_of)
        return chat_choice(index, completion, logprobs)

    async def frames(self, index: int, answer: Bursts, chunks: Chunks) -> AsyncGenerator[bytes]:
        yield chunks.choice(index, {"role": "assistant", "content": ""})
        async for burst in answer.all():
            if frame := self._frame(index, burst, chunks):
                yield frame
        completion = await answer.completion()
        warnings = warnings_behind(self, index, completion)
        yield chunks.choice(index, {}, warnings, finish_reason=completion.finish_reason)

    def used(self, completions: Sequence[Completion]) -> Json:
        return usage_of([completion.stats for completion in completions], self.count)

    def done(self, completions: Sequence[Completion]) -> None:
        """Have the engine read the answer as history, so that the next turn reads only its own message."""
        if len(completions) == 1 and not self._asked["continues"]:
            answer = assistant_message(completions[0])
            self._llm.remember([*self._messages, answer], think=self._asked["think"], tools=self._asked["tools"])

    def _frame(self, index: int, burst: Burst, chunks: Chunks) -> bytes:
        if self._top is not None:
            logprobs = chat_logprobs(burst.token_ids, burst.scored, self._text_of)
            scored = chunks.choice(index, {"content": ""}, logprobs=logprobs)
            return scored + self._frame_of(index, burst.segments, chunks)
        return self._frame_of(index, burst.segments, chunks)

    def _frame_of(self, index: int, segments: Sequence[AnySegment], chunks: Chunks) -> bytes:
        return b"".join(
            chunks.text(index, FIELDS[segment.kind], segment.text)
            if isinstance(segment, Segment)
            else _call_frame(index, segment, chunks)
            for segment in _joined(segments)
        )


def _call_frame(index: int, segment: CallSegment, chunks: Chunks) -> bytes:
    """A call's id and name first, then its arguments as they grow; its end is said by what follows."""
    match segment.kind:
        case Kind.CALL:
            begun = {"id": segment.id, "type": "function", "function": {"name": segment.name, "arguments": ""}}
        case Kind.ARGUMENTS:
            begun = {"function": {"arguments": segment.text}}
        case _:
            return b""
    return chunks.choice(index, {"tool_calls": [{"index": segment.index, **begun}]})


def _joined(segments: Sequence[AnySegment]) -> Sequence[AnySegment]:
    """Neighbours of one kind of text as one."""
    if len(segments) < 2:
        return segments
    found: list[AnySegment] = []
    for segment in segments:
        last = found[-1] if found else None
        if isinstance(segment, Segment) and isinstance(last, Segment) and last.kind is segment.kind:
            found[-1] = Segment(segment.kind, last.text + segment.text)
        else:
            found.append(segment)
    return found
