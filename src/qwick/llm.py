"""Text in, text out, in one process: the only place where text and engine meet.

>>> with LLM("pocket") as llm:  # doctest: +SKIP
...     print(llm.chat([{"role": "user", "content": "What is 17 + 25?"}]).text)
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Self, Unpack, cast, overload

from qwick.constraining import TokenConstraints
from qwick.engine.constraint import Grammar
from qwick.model.source import LoadProgress, open_source
from qwick.opening import EngineOptions, open_engine
from qwick.ops.native import NativeBackend
from qwick.prompting import Asked, Message, Prompt, Prompting, SamplingOptions, Scores
from qwick.store import POCKET, find_model
from qwick.streams import Completion, Stream, Streams
from qwick.text.answer import Answer
from qwick.text.tools import ToolChoice, checked_tools


class LLM:
    """A model, ready to answer. Not for several threads at once; several streams in one thread advance together.

    `config` is its network, `backend` what it runs on: instruction set, threads, bytes of memory. `memory`: what a cap
    on memory was divided into, None without one.

    path           `pocket` (the embedded model), a Hugging Face style folder, a GGUF file, or a name of the local store
    format         of the weights in memory (`q8_0`, …); None: as the files have them
    threads        for decoding; threads_batch for prompts. None: as many as were found fastest for this model here; at
                   first what cores, affinity and cgroup suggest, and the first steps try others (thread_choice.py)
    context_len    most tokens of one prompt and its answer; None: 4096, or less when the model takes less
    yarn           2 (of the released models: 524,288 tokens) or 4 (1,010,000) for contexts beyond the model's own, by
                   other rotary frequencies; short texts may suffer. ContextWarning where its card does not claim it
    kv_format      of the attention cache: `f16`, `bf16`, `q8_0` (half the memory, a small error), `f32` (no rounding)
    lock_memory    keep the weights from being swapped out; CapacityError when the system forbids it
    max_sequences  prompts answered at the same time; each takes a context's memory
    cache_memory   bytes for what was read, so that a prompt that begins as an earlier one did goes on from there
                   (`Stats.cached_tokens`): turns of a chat, questions under one system prompt. 0: nothing is kept
    memory         bytes that the process may take in all, weights included; CapacityError, naming what weighs how much,
                   when that is too little. `max_sequences` and `cache_memory` then share what is left: answers wait
                   for memory. None: no cap
    pack_cache     keep the weights as memory holds them in the user's cache folder, and read them from there: a model
                   that is quantised when it is opened starts sooner the next time. The first start takes longer, and
                   the disk holds the weights a second time
    progress       called with (bytes done, bytes in all) while weights load, and while they are kept

    Raises UsageError, CheckpointError, ConfigError, CapacityError or KernelError, each naming the remedy.
    """

    def __init__(
        self,
        path: str | Path = POCKET,
        *,
        format: str | None = None,
        threads: int | None = None,
        threads_batch: int | None = None,
        context_len: int | None = None,
        yarn: float | None = None,
        kv_format: str = "f16",
        lock_memory: bool = False,
        max_sequences: int = 1,
        cache_memory: int = 0,
        memory: int | None = None,
        pack_cache: bool = False,
        progress: LoadProgress | None = None,
    ) -> None:
        options = EngineOptions(
            format=format,
            threads=threads,
            threads_batch=threads_batch,
            context_len=context_len,
            yarn=yarn,
            kv_format=kv_format,
            lock_memory=lock_memory,
            max_sequences=max_sequences,
            cache_memory=cache_memory,
            memory=memory,
            pack_cache=pack_cache,
        )
        found = find_model(path)
        # What else an answer needs is imported and made beside the reading of weights, which leaves Python alone.
        with open_source(found) as source, ThreadPoolExecutor(1) as pool:
            self.prompting = Prompting(found, source, keeps=options.keeps)
            try:
                preparing: list[Future[None]] = []

                def prepare() -> None:
                    if not preparing:  # a pack that turns out damaged is followed by the model's own files
                        preparing.append(pool.submit(self.prompting.prepare))

                def settled() -> None:
                    preparing[0].result()

                constraints = TokenConstraints(lambda: self.tokenizer, source.config.vocab_size)
                engine = open_engine(str(path), source, options, progress, prepare, settled, constraints)
            except BaseException:
                self.prompting.close()
                raise
        self.template, self.tokenizer = self.prompting.template, self.prompting.tokenizer
        self.config = engine.model.config
        self.backend = cast("NativeBackend", engine.model.backend)
        self.context_len = engine.config.context_len
        self.memory = engine.config.memory
        self._streams = Streams(engine)

    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        stop: str | Sequence[str] = (),
        grammar: Grammar | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: list[str],
        *,
        stop: str | Sequence[str] = (),
        grammar: Grammar | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: Prompt | list[str],
        *,
        stop: str | Sequence[str] = (),
        grammar: Grammar | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Completion | list[Completion]:
        """Continue a prompt (text or token ids), or each of a list of texts, as they are: no chat template.

        Control tokens written in a text count as such; for text from others use `chat`. `stop`: texts that end an
        answer and are not part of it. `grammar`: what it must look like (engine/constraint.py).
        """
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
            streams = [self.stream(cast("str", text), stop=stop, grammar=grammar, **sampling) for text in prompt]
            return [stream.completion for stream in streams]
        return self.stream(cast("Prompt", prompt), stop=stop, grammar=grammar, **sampling).completion

    def stream(
        self,
        prompt: Prompt,
        *,
        stop: str | Sequence[str] = (),
        grammar: Grammar | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Stream:
        """As `generate`, piece by piece; the stream's `completion` has the counts in the end."""
        return self._start(self.prompting.continuation(prompt, stop, sampling, grammar))

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        stream: Literal[False] = False,
        stop: str | Sequence[str] = (),
        grammar: Grammar | None = None,
        thinking_budget: int | None = None,
        loop_guard: bool = True,
        **sampling: Unpack[SamplingOptions],
    ) -> Completion: ...

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        stream: Literal[True],
        stop: str | Sequence[str] = (),
        grammar: Grammar | None = None,
        thinking_budget: int | None = None,
        loop_guard: bool = True,
        **sampling: Unpack[SamplingOptions],
    ) -> Stream: ...

    def chat(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        stream: bool = False,
        stop: str | Sequence[str] = (),
        grammar: Grammar | None = None,
        thinking_budget: int | None = None,
        loop_guard: bool = True,
        **sampling: Unpack[SamplingOptions],
    ) -> Completion | Stream:
        """Answer `messages` ({"role": …, "content": …}) by the model's chat template; control tokens in them are text.

        `think`: whether the model reasons first; None: the default of this model. `stop` is looked for in the answer's
        text, not in its reasoning; `grammar` is what the text must look like; with tools, it or calls. Raises
        TemplateError, UsageError.

        tools        {"type": "function", "function": {"name", "description", "parameters": JSON schema}}: the model may
                     call them (`Completion.tool_calls`); messages of earlier calls and results are OpenAI's
        tool_choice  auto; none; required, or {"type": "function", "function": {"name": …}}: the answer is calls, behind
                     the thought. A call is held to its tool: what of a schema cannot be kept, `Stats.loose` tells
        parallel_tool_calls  whether there may be several; False: the answer ends behind the first
        thinking_budget  tokens that the thought may take before it is ended, with a sentence that says so, and room for
                         the answer left (`Stats.thought_ended`); 0: do not think; None: as many as it wants
        loop_guard       a thought that only repeats itself is ended too, and so is an answer (`Stats.cut`)
        """
        wanted = checked_tools(tools, tool_choice, parallel=parallel_tool_calls)
        asked = self.prompting.chat(
            messages, think, stop, sampling, wanted, grammar, thinking_budget, loop_guard=loop_guard
        )
        answer = self._start(asked)
        return answer if stream else answer.completion

    def score(
        self,
        choices: Sequence[str],
        prompt: Prompt | None = None,
        *,
        messages: Sequence[Message] = (),
        think: bool = False,
    ) -> Scores:
        """How likely each of `choices` follows `prompt`, or begins the answer to `messages`.

        A choice is encoded alone: where words begin with a space, so do choices. Raises as `generate` and `chat` do.
        """
        requests = self.prompting.scorings(prompt, messages, think, choices)
        streams = [self._start(Asked(request, Answer(self.tokenizer.token_bytes))) for request in requests]
        return Scores.of(choices, [(c.prompt_scored, c.stats) for c in (stream.completion for stream in streams)])

    def remember(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Have a chat that ends with an answer read as history by `idle`: the next turn then reads only its question.

        Without `cache_memory`, or where the template takes no next turn, nothing happens.
        """
        history = self.prompting.history(messages, think, checked_tools(tools))
        if history is not None:
            self._streams.remember(history)

    def idle(self) -> bool:
        """Read a piece, about 0.1 s, of what `remember` was given; False when nothing is left to do."""
        return self._streams.idle()

    @property
    def thinks_by_default(self) -> bool:
        return self.prompting.thinks_by_default

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self._streams.close()
        self.prompting.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, asked: Asked) -> Stream:
        return Stream(self._streams, asked.request, asked.answer)
