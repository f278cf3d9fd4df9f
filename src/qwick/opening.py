"""A model's files become an engine: which, with what limits, on how many threads."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from qwick.cache.spec import CacheSpec
from qwick.engine.admission import needed_slots, wanted_pages
from qwick.engine.config import EngineConfig
from qwick.engine.constraint import Constraints
from qwick.engine.engine import Engine
from qwick.engine.memory_plan import check_weights, plan_memory, resident_bytes, scratch_bytes
from qwick.errors import ContextWarning, UsageError
from qwick.formats import format_named
from qwick.model.load import memory_bytes
from qwick.model.model import Model, open_model
from qwick.model.source import LoadProgress, Source
from qwick.model.yarn import ASKED_FACTORS, CLAIMED_BY
from qwick.ops.native import NativeBackend, NativeWeight, most_threads
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
    memory: int | None = None
    memory_elsewhere: int = 0  # bytes of `memory` that other processes of the caller take
    pack_cache: bool = False

    def __post_init__(self) -> None:
        for name, count in (("threads", self.threads), ("threads_batch", self.threads_batch)):
            if count is not None and count < 1:
                raise UsageError(f"{name} is {count}; it must be at least 1")
        if self.memory is not None and self.memory < 1:
            raise UsageError(f"memory is {self.memory}; it must be at least 1 byte")
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
    settled: Callable[[], None] | None = None,
    constraints: Constraints | None = None,
) -> Engine:
    """Read the weights and allocate the cache. `source` stays open; `name` is what the caller calls the model.

    `beside` is called once or more when only the disk is busy (`load_network`), `settled` before memory is divided:
    until it returns, what else stays in memory may still grow. `constraints`: of answers, by grammars.
    Raises UsageError, CheckpointError, ConfigError, CapacityError or KernelError.
    """
    source = source if options.yarn is None else extended(source, options.yarn)
    format = None if options.format is None else format_named(options.format)
    if options.memory is not None:
        check_weights(options.memory, memory_bytes(source, format), resident_bytes() + options.memory_elsewhere)
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
    if settled is not None:
        settled()
    trial = choice.trial(cast("NativeBackend", model.backend), config.step_tokens)
    if options.memory is not None:
        threads = max(choice.threads, choice.threads_batch) if trial is None else most_threads()  # it may try more
        config = within_memory(model, config, options.memory, threads, options.memory_elsewhere)
    return Engine(model, config, trial, constraints)


def within_memory(
    model: Model[NativeWeight], config: EngineConfig, cap: int, threads: int, elsewhere: int = 0
) -> EngineConfig:
    """`config` with as many pages as fit `cap` bytes of resident memory, of which `elsewhere` are other processes'.

    At most `threads` compute. The weights are loaded, the cache is not there yet. CapacityError when it does not fit.
    """
    backend = cast("NativeBackend", model.backend)
    spec = CacheSpec(model.config.cache_shape(num_pages=0, num_slots=0, kv_format=config.kv_format))
    programs = [
        backend.compile(network, max_tokens=config.step_tokens) for network in model.network.programs().values()
    ]
    scratch = scratch_bytes(
        model.config,
        buffer_bytes=sum(program.buffer_bytes for program in programs),
        threads=threads,
        step_tokens=config.step_tokens,
        max_sequences=config.max_sequences,
        context_len=config.context_len,
    )
    weights = backend.weight_bytes
    plan = plan_memory(
        spec,
        cap=cap,
        weights=weights,
        process=max(resident_bytes() - weights, 0) + elsewhere,
        scratch=scratch,
        num_slots=needed_slots(config),
        context_len=config.context_len,
        wanted_pages=wanted_pages(spec, config),
    )
    return replace(config, num_pages=plan.num_pages, memory=plan)


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
