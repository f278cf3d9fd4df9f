"""Text in, text out, in one process: the only place where text and engine meet.

>>> with LLM("pocket") as llm:  # doctest: +SKIP
...     print(llm.chat([{"role": "user", "content": "What is 17 + 25?"}]).text)
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack, cast, overload

from qwick import pocket
from qwick.describe import sampling_advice
from qwick.engine.config import EngineConfig
from qwick.engine.engine import Engine
from qwick.engine.request import Request
from qwick.errors import QwickError, UsageError
from qwick.formats import format_named
from qwick.model.model import open_model
from qwick.model.source import LoadProgress, open_source
from qwick.ops.native import NativeBackend
from qwick.sampling.defaults import with_defaults
from qwick.sampling.params import SamplingParams
from qwick.store import POCKET, find_model
from qwick.streams import Completion, Stream, Streams
from qwick.text.answer import Answer
from qwick.text.chat_template import ChatTemplate
from qwick.text.quoting import Piece
from qwick.text.segments import Segments
from qwick.text.tokenizer import Tokenizer
from qwick.text.turns import next_turn, unshared_len
from qwick.thread_choice import ThreadChoice
from qwick.weights.checkpoint import Metadata

DEFAULT_CONTEXT_LEN = 4096  # less when the model takes less

Message = Mapping[str, Any]
Prompt = str | Sequence[int]


class SamplingOptions(TypedDict, total=False):
    """Fields of SamplingParams; those left out, or None, are the model's defaults: its own files', else its card's."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    max_tokens: int | None
    stop_token_ids: frozenset[int] | None


class LLM:
    """A model, ready to answer. Not for several threads at once; several streams in one thread advance together.

    `config` is its network, `backend` what it runs on: instruction set, threads, bytes of memory.

    path           `pocket` (the embedded model), a Hugging Face style folder, a GGUF file, or a name of the local store
    format         of the weights in memory (`q8_0`, …); None: as the files have them
    threads        for decoding; threads_batch for prompts. None: as many as were found fastest for this model here; at
                   first what cores, affinity and cgroup suggest, and the first steps try others (thread_choice.py)
    context_len    most tokens of one prompt and its answer; None: 4096, or less when the model takes less
    kv_format      of the attention cache: `f16`, `bf16`, `q8_0` (half the memory, a small error), `f32` (no rounding)
    lock_memory    keep the weights from being swapped out; CapacityError when the system forbids it
    max_sequences  prompts answered at the same time; each takes a context's memory
    kept_sequences how many ended answers stay in memory: the next turn of such a chat reads only what is new
                   (`Stats.cached_tokens`); each takes one more recurrent state
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
        kv_format: str = "f16",
        lock_memory: bool = False,
        max_sequences: int = 1,
        kept_sequences: int = 0,
        pack_cache: bool = False,
        progress: LoadProgress | None = None,
    ) -> None:
        for name, count in (("threads", threads), ("threads_batch", threads_batch)):
            if count is not None and count < 1:
                raise UsageError(f"{name} is {count}; it must be at least 1")
        weight_format = None if format is None else format_named(format)
        found = find_model(path)
        source = open_source(found)
        try:
            self._advice = sampling_advice(found, source.metadata)
            self.template = ChatTemplate.open(found, source.metadata, is_own=found == pocket.FOLDER)
        except BaseException:
            source.close()
            raise
        try:
            # What else an answer needs is imported and made beside the reading of weights, which leaves Python alone.
            with source, ThreadPoolExecutor(1) as pool:
                choice = ThreadChoice(str(path), source, weight_format, threads, threads_batch)
                making: list[Future[Tokenizer]] = []

                def prepare() -> None:
                    if not making:  # a pack that turns out damaged is followed by the model's own files
                        making.append(pool.submit(self._prepare, found, source.metadata))

                model = open_model(
                    source,
                    format=weight_format,
                    threads=choice.threads,
                    threads_batch=choice.threads_batch,
                    lock_memory=lock_memory,
                    pack_cache=pack_cache,
                    progress=progress,
                    beside=prepare,
                )
                self.tokenizer = making[0].result()
            self.config = model.config
            self.backend = cast("NativeBackend", model.backend)
            longest = model.config.max_position_embeddings
            self.context_len = min(DEFAULT_CONTEXT_LEN, longest) if context_len is None else context_len
            config = EngineConfig(self.context_len, max_sequences, kv_format=kv_format, kept_sequences=kept_sequences)
            self._keeps = kept_sequences > 0
            self._streams = Streams(Engine(model, config, choice.trial(self.backend, config.step_tokens)))
        except BaseException:
            self.template.close()
            raise

    @overload
    def generate(
        self, prompt: Prompt, *, stop: str | Sequence[str] = (), **sampling: Unpack[SamplingOptions]
    ) -> Completion: ...

    @overload
    def generate(
        self, prompt: list[str], *, stop: str | Sequence[str] = (), **sampling: Unpack[SamplingOptions]
    ) -> list[Completion]: ...

    def generate(
        self, prompt: Prompt | list[str], *, stop: str | Sequence[str] = (), **sampling: Unpack[SamplingOptions]
    ) -> Completion | list[Completion]:
        """Continue a prompt (text or token ids), or each of a list of texts, as they are: no chat template.

        Control tokens written in a text count as such; for text from others use `chat`. `stop`: texts that end an
        answer and are not part of it.
        """
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
            streams = [self.stream(cast("str", text), stop=stop, **sampling) for text in prompt]
            return [stream.completion for stream in streams]
        return self.stream(cast("Prompt", prompt), stop=stop, **sampling).completion

    def stream(self, prompt: Prompt, *, stop: str | Sequence[str] = (), **sampling: Unpack[SamplingOptions]) -> Stream:
        """As `generate`, piece by piece; the stream's `completion` has the counts in the end."""
        ids = self.tokenizer.encode(prompt, allow_special=True) if isinstance(prompt, str) else prompt
        return self._start(ids, stop, None, self._params(sampling, think=self.thinks_by_default))

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        stream: Literal[False] = False,
        stop: str | Sequence[str] = (),
        **sampling: Unpack[SamplingOptions],
    ) -> Completion: ...

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        stream: Literal[True],
        stop: str | Sequence[str] = (),
        **sampling: Unpack[SamplingOptions],
    ) -> Stream: ...

    def chat(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        stream: bool = False,
        stop: str | Sequence[str] = (),
        **sampling: Unpack[SamplingOptions],
    ) -> Completion | Stream:
        """Answer `messages` ({"role": …, "content": …}) by the model's chat template; control tokens in them are text.

        `think`: whether the model reasons first; None: the default of this model. `stop` is looked for in the answer's
        text, not in its reasoning. Raises TemplateError.
        """
        think = self.thinks_by_default if think is None else think
        params = self._params(sampling, think=think)
        pieces = self._render(messages, think)
        ids = self.tokenizer.encode_pieces(pieces)
        snapshot_at = self._snapshot_at(messages, think, pieces, ids) if self._keeps else None
        answer = self._start(ids, stop, Segments("".join(piece.text for piece in pieces)), params, snapshot_at)
        return answer if stream else answer.completion

    @property
    def thinks_by_default(self) -> bool:
        return self.template.thinks_by_default(self.config.hidden_size)

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self._streams.close()
        self.template.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, path: Path, metadata: Metadata) -> Tokenizer:
        tokenizer = Tokenizer.open(path, metadata)
        self.template.prepare()
        return tokenizer

    def _render(self, messages: Sequence[Message], think: bool) -> tuple[Piece, ...]:
        return self.template.render(messages, think=think, control_tokens=self.tokenizer.added_tokens)

    def _snapshot_at(
        self, messages: Sequence[Message], think: bool, pieces: Sequence[Piece], ids: Sequence[int]
    ) -> int | None:
        """How many of `ids` the next turn's prompt will begin with; None when the template takes no next turn."""
        try:
            later = self._render(next_turn(messages), think)
        except QwickError:
            return None
        return len(ids) - unshared_len(pieces, later, self.tokenizer.encode_pieces) or None

    def _start(
        self,
        ids: Sequence[int],
        stop: str | Sequence[str],
        segments: Segments | None,
        params: SamplingParams,
        snapshot_at: int | None = None,
    ) -> Stream:
        answer = Answer(self.tokenizer.token_bytes, [stop] if isinstance(stop, str) else stop, segments)
        return Stream(self._streams, Request(tuple(ids), params, self._keeps, snapshot_at), answer)

    def _params(self, sampling: SamplingOptions, *, think: bool) -> SamplingParams:
        params = with_defaults(sampling, self._advice, self.config.hidden_size, think=think)
        stops = (token_id for token_id in self.tokenizer.stop_ids if token_id < self.config.vocab_size)
        return params.seeded().stopping_at(stops)
