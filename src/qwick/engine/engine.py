"""The engine: requests in, events out."""

import sys
from itertools import count
from time import perf_counter
from typing import Any

from qwick.cache.kept import SequenceMemory
from qwick.cache.spec import CacheSpec, check_context
from qwick.engine.batching import build
from qwick.engine.config import EngineConfig
from qwick.engine.request import Event, Finish, Request, Sequence
from qwick.engine.scheduler import PlannedRun, plan
from qwick.engine.thread_trial import ThreadTrial
from qwick.errors import CapacityError, UsageError
from qwick.model.model import Model
from qwick.ops.contract import Batch, Result
from qwick.sampling.sampler import sample

# A step gives the GIL up and has to get it back. Beside a busy Python thread that takes one switch interval: at
# Python's default 5 ms. Shorter than this, the busy thread interrupts the step's own Python instead (docs/LOG.md).
SWITCH_INTERVAL = 1e-4  # seconds


class Engine:
    """Runs sequences of one model together. Not thread-safe; the caller turns the crank with `step`.

    Making one shortens the interpreter's switch interval to 0.1 ms, for the whole process. `trial`: finds the best
    number of threads from the first steps.
    """

    def __init__(self, model: Model[Any], config: EngineConfig, trial: ThreadTrial | None = None) -> None:
        check_context(config.context_len, model.config.max_position_embeddings)
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
        self.model = model
        self.config = config
        self.spec = CacheSpec(model.config.cache_shape(num_pages=0, num_slots=0, kv_format=config.kv_format))
        self._memory = SequenceMemory(self.spec, config.context_len, config.max_sequences, config.kept_sequences)
        model.open(
            num_pages=self._memory.num_pages,
            num_slots=self._memory.num_slots,
            max_tokens=config.step_tokens,
            kv_format=config.kv_format,
        )
        self._trial = trial
        self._ids = count()
        self._waiting: list[tuple[int, Request]] = []
        self._running: dict[int, Sequence] = {}

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def add(self, request: Request) -> int:
        """Queue a request; its events carry the id returned. Raises UsageError or CapacityError if it can never run."""
        num_tokens = len(request.token_ids)
        if num_tokens == 0:
            raise UsageError("the prompt is empty")
        if not 0 <= min(request.token_ids) <= max(request.token_ids) < self.model.config.vocab_size:
            raise UsageError(f"token ids must be from 0 to {self.model.config.vocab_size - 1}")
        request.sampling.check_ids(self.model.config.vocab_size)
        if num_tokens >= self.config.context_len:
            raise CapacityError(
                f"the prompt has {num_tokens:,} tokens; the context is {self.config.context_len:,} "
                "(raise it with --ctx-size, or shorten the prompt)"
            )
        if request.snapshot_at is not None and not 1 <= request.snapshot_at <= num_tokens:
            raise UsageError(f"snapshot_at is {request.snapshot_at}; it must be from 1 to the prompt's {num_tokens:,}")
        sequence_id = next(self._ids)
        self._waiting.append((sequence_id, request))
        return sequence_id

    def cancel(self, sequence_id: int) -> None:
        """End a request, waiting or running; unknown ids (already finished) are fine."""
        self._waiting = [(i, request) for i, request in self._waiting if i != sequence_id]
        if sequence_id in self._running:
            self._release(self._running[sequence_id])

    def step(self) -> list[Event]:
        """Advance every sequence that fits in one batch; one event for each that got a token.

        When a step fails or is interrupted, its sequences end: the cache may be ahead of what is known of them.
        """
        self._admit()
        planned = plan(list(self._running.values()), self.config.step_tokens)
        if not planned:
            return []
        try:
            started = perf_counter()
            batch = build(planned, self.model.rope)
            result = self._forward(batch)
            tokens = self._sample(planned, result)
            return self._commit(planned, tokens, perf_counter() - started)
        except BaseException:
            self._drop(planned)
            raise

    def check(self) -> None:
        """Invariants: every page and slot is free or owned by one sequence, running or kept."""
        self._memory.check(sequence.held for sequence in self._running.values())

    def _admit(self) -> None:
        """Start waiting requests, oldest first, while the memory of a whole sequence can be had."""
        while self._waiting:
            sequence_id, request = self._waiting[0]
            granted = self._memory.take(request.token_ids, self._longest(request), keep=request.keep)
            if granted is None:
                return
            del self._waiting[0]
            held = granted.held
            if granted.rewinds and held.snapshot_slot is not None:
                self.model.backend.copy_slot(held.snapshot_slot, held.slot)
            self._running[sequence_id] = Sequence(
                sequence_id, request, list(request.token_ids), held, granted.num_cached
            )

    def _longest(self, request: Request) -> int:
        """Tokens, prompt included, after which the sequence ends at the latest."""
        if request.sampling.max_tokens is None:
            return self.config.context_len
        return min(self.config.context_len, len(request.token_ids) + request.sampling.max_tokens)

    def _forward(self, batch: Batch) -> Result:
        if self._trial is None or self._trial.is_over:
            return self.model.forward(batch)
        return self._trial.run(self.model.forward, batch)

    def _sample(self, planned: list[PlannedRun], result: Result) -> dict[int, int]:
        """New token by sequence id, for the runs that reached their last known token."""
        wanting = [run.sequence for run in planned if run.is_last]
        return {
            sequence.sequence_id: sample(result, row, sequence.request.sampling, len(sequence.token_ids))
            for row, sequence in enumerate(wanting)
        }

    def _commit(self, planned: list[PlannedRun], tokens: dict[int, int], seconds: float) -> list[Event]:
        """Write down what the step did; finished sequences give their memory back."""
        events: list[Event] = []
        for run in planned:
            sequence, stats = run.sequence, run.sequence.stats
            if stats.generated_tokens == 0:
                stats.prompt_seconds += seconds
            else:
                stats.decode_seconds += seconds
            for after, _ in sequence.snapshots_within(run.num_tokens):
                sequence.held.snapshot_len = sequence.num_cached + after
            sequence.num_cached += run.num_tokens
            if sequence.sequence_id in tokens:
                sequence.token_ids.append(tokens[sequence.sequence_id])
                stats.generated_tokens += 1
                events.append(Event(sequence.sequence_id, sequence.token_ids[-1], stats.copy(), self._finish(sequence)))
                if events[-1].finish:
                    self._release(sequence)
        return events

    def _finish(self, sequence: Sequence) -> Finish | None:
        if sequence.token_ids[-1] in sequence.request.sampling.stop_token_ids:
            return Finish.STOP
        longest = self._longest(sequence.request)
        return Finish.LENGTH if len(sequence.token_ids) >= longest else None

    def _release(self, sequence: Sequence) -> None:
        """A sequence ended, between two steps."""
        del self._running[sequence.sequence_id]
        self._memory.keep(sequence.held, sequence.token_ids[: sequence.num_cached])

    def _drop(self, planned: list[PlannedRun]) -> None:
        """A step ended in the middle."""
        for run in planned:
            if self._running.pop(run.sequence.sequence_id, None) is not None:
                self._memory.give_back(run.sequence.held)
