"""A model's files become an engine: which, with what limits, on how many threads."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from qwick.engine.config import EngineConfig
from qwick.engine.engine import Engine
from qwick.errors import ContextWarning, UsageError
from qwick.formats import format_named
from qwick.model.model import open_model
from qwick.model.source import LoadProgress, Source
from qwick.model.yarn import ASKED_FACTORS, CLAIMED_BY
from qwick.ops.native import NativeBackend
from qwick.thread_choice import ThreadChoice

DEFAULT_CONTEXT_LEN = 4096  # less when the model takes less


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Of `LLM`, what concerns its engine; they are explained there. Plain data, checked when made (UsageError)."""

    format: str | None = None
    threads: int | None = None
    threads_batch: int | None = None
    context_len: int | None = None
    yarn: float | None = None
    kv_format: str = "f16"
    lock_memory: bool = False
    max_sequences: int = 1
    cache_memory: int = 0
    pack_cache: bool = False

    def __post_init__(self) -> None:
        for name, count in (("threads", self.threads), ("threads_batch", self.threads_batch)):
            if count is not None and count < 1:
                raise UsageError(f"{name} is {count}; it must be at least 1")
        least, most = ASKED_FACTORS
        if self.yarn is not None and not least < self.yarn <= most:
            raise UsageError(f"yarn is {self.yarn:g}; it must be above {least:g} and at most {most:g}: 2 or 4")
        if self.format is not None:
            format_named(self.format)

    @property
    def keeps(self) -> bool:
        """Whether what was read stays in memory for prompts that begin with it."""
        return self.cache_memory > 0

    def config(self, longest: int) -> EngineConfig:
        """For a model that takes `longest` tokens. Raises UsageError."""
        context_len = min(DEFAULT_CONTEXT_LEN, longest) if self.context_len is None else self.context_len
        return EngineConfig(context_len, self.max_sequences, kv_format=self.kv_format, cache_memory=self.cache_memory)


def open_engine(
    name: str,
    source: Source,
    options: EngineOptions,
    progress: LoadProgress | None = None,
    beside: Callable[[], None] | None = None,
) -> Engine:
    """Read the weights and allocate the cache. `source` stays open; `name` is what the caller calls the model.

    `beside` is called once or more when only the disk is busy (`load_network`).
    Raises UsageError, CheckpointError, ConfigError, CapacityError or KernelError.
    """
    source = source if options.yarn is None else extended(source, options.yarn)
    format = None if options.format is None else format_named(options.format)
    choice = ThreadChoice(name, source, format, options.threads, options.threads_batch)
    model = open_model(
        source,
        format=format,
        threads=choice.threads,
        threads_batch=choice.threads_batch,
        lock_memory=options.lock_memory,
        pack_cache=options.pack_cache,
        progress=progress,
        beside=beside,
    )
    config = options.config(model.config.max_position_embeddings)
    return Engine(model, config, choice.trial(cast("NativeBackend", model.backend), config.step_tokens))


def extended(source: Source, factor: float) -> Source:
    """The same files, read as a network for longer contexts."""
    config = source.config.with_yarn(factor)
    if config.hidden_size not in CLAIMED_BY:
        warnings.warn(
            f"the card of this model does not speak of contexts beyond {source.config.max_position_embeddings:,} "
            "tokens; with YaRN its answers may be worse",
            ContextWarning,
            stacklevel=2,
        )
    return replace(source, config=config)
