"""The engine: requests in, events out."""

import sys
from collections import deque
from collections.abc import Iterator
from itertools import count
from time import perf_counter
from typing import Any

from qwick.cache.spec import CacheSpec, check_context
from qwick.engine.admission import LEAST_TURN, Admission
from qwick.engine.batching import build
from qwick.engine.checking import check_request
from qwick.engine.config import EngineConfig
from qwick.engine.constraint import Constraints
from qwick.engine.guiding import guidance_of
from qwick.engine.instruments import Instruments, Levels
from qwick.engine.pace import Pace
from qwick.engine.request import Event, Finish, Request, Sequence
from qwick.engine.scheduler import PlannedRun, plan
from qwick.engine.thread_trial import ThreadTrial
from qwick.engine.wanted import Choice, choose, wanted_rows, within_scores
from qwick.errors import CapacityError
from qwick.model.model import Model
from qwick.ops.contract import Batch, Result, Role
from qwick.sampling.params import SamplingParams

# A step gives the GIL up and has to get it back. Beside a busy Python thread that takes one switch interval: at
# Python's default 5 ms. Shorter than this, the busy thread interrupts the step's own Python instead (docs/LOG.md).
SWITCH_INTERVAL = 1e-4  # seconds
IDLE_SECONDS = 0.1  # of a piece that is read at leisure: so long a new request may have to wait for it
MOST_IDLE_JOBS = 64
_NO_SAMPLING = SamplingParams()


class Engine:
    """Runs sequences of one model together. Not thread-safe; the caller turns the crank with `step`.

    Making one shortens the interpreter's switch interval to 0.1 ms, for the whole process. `trial`: finds the best
    number of threads from the first steps. `constraints`: what holds answers to grammars; None: none are taken.
    """

    def __init__(
        self,
        model: Model[Any],
        config: EngineConfig,
        trial: ThreadTrial | None = None,
        constraints: Constraints | None = None,
    ) -> None:
        check_context(config.context_len, model.config.max_position_embeddings)
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
        self.model = model
        self.config = config
        self.spec = CacheSpec(model.config.cache_shape(num_pages=0, num_slots=0, kv_format=config.kv_format))
        self.instruments = Instruments()
        self._admission = Admission(self.spec, config, model.backend)
        self._memory = self._admission.memory
        model.open(
            num_pages=self._memory.num_pages,
            num_slots=self._admission.num_slots,
            max_tokens=config.step_tokens,
            kv_format=config.kv_format,
        )
        self._trial = trial
        self._constraints = constraints
        self._pace = Pace(config.step_tokens)
        self._ids = count()
        self._idle_jobs: deque[Request] = deque(maxlen=MOST_IDLE_JOBS)
        self._reader: Sequence | None = None  # an idle job under way

    @property
    def has_work(self) -> bool:
        return bool(self._admission.waiting or self._admission.running)

    @property
    def has_idle_work(self) -> bool:
        return self._reader is not None or bool(self._idle_jobs)

    @property
    def waiting_ids(self) -> frozenset[int]:
        """Requests that have no memory, because no step has taken them up or because they made way for others."""
        return frozenset(sequence.sequence_id for sequence in self._admission.waiting)

    @property
    def running_ids(self) -> frozenset[int]:
        return frozenset(sequence.sequence_id for sequence in self._admission.running)

    @property
    def levels(self) -> Levels:
        memory, admission = self._memory, self._admission
        return Levels(
            waiting=len(admission.waiting),
            running=len(admission.running),
            idle_jobs=len(self._idle_jobs) + (self._reader is not None),
            pages=memory.num_pages,
            pages_free=memory.num_free,
            pages_in_use=memory.num_in_use,
            page_bytes=self.spec.page_bytes,
            snapshots=memory.num_snapshots,
            snapshots_taken=memory.num_taken,
            snapshots_forgotten=memory.num_forgotten,
            preemptions=admission.num_preemptions,
        )

    def add(self, request: Request) -> int:
        """Queue a request; its events carry the id returned. Raises UsageError or CapacityError if it can never run."""
        check_request(request, self.model.config.vocab_size)
        num_tokens = len(request.token_ids)
        if num_tokens >= self.config.context_len:
            raise CapacityError(
                f"the prompt has {num_tokens:,} tokens; the context is {self.config.context_len:,} "
                "(raise it with --ctx-size, or shorten the prompt)"
            )
        num_pages = self.spec.pages_for(self._longest(request))
        if num_pages > self._memory.num_pages:
            raise CapacityError(
                f"a prompt of {num_tokens:,} tokens and its answer take {num_pages:,} pages of the cache, "
                f"which has {self._memory.num_pages:,} (raise --memory, or lower --max-tokens)"
            )
        room = self._longest(request) - num_tokens
        guidance = guidance_of(request, room, self._constraints, self.model.config.vocab_size)
        sequence = Sequence(next(self._ids), request, guidance=guidance)
        self._admission.waiting.append(sequence)
        self.instruments.requests += 1
        return sequence.sequence_id

    def prepare(self, request: Request) -> None:
        """Make what its grammars need, which takes longest of all that `add` does. From any thread; raises nothing."""
        if self._constraints is not None:
            for grammar in request.grammars:
                self._constraints.prepare(grammar)

    def remember(self, request: Request) -> None:
        """Read this prompt at leisure (`idle_step`), so that a later one that begins so goes on from its end.

        Nothing comes back; what finds no room, or is not worth it, is dropped.
        """
        check_request(request, self.model.config.vocab_size)
        if len(request.token_ids) < self.config.context_len and self._memory.remembers:
            places = (*request.boundaries, len(request.token_ids))
            self._idle_jobs.append(Request(request.token_ids, _NO_SAMPLING, places))

    def cancel(self, sequence_id: int) -> None:
        """End a request, waiting or running; unknown ids (already finished) are fine."""
        admission = self._admission
        for sequence in [*admission.waiting, *admission.running]:
            if sequence.sequence_id == sequence_id:
                if sequence in admission.waiting:
                    admission.waiting.remove(sequence)
                admission.release(sequence)
                self.instruments.cancelled += 1

    def step(self) -> list[Event]:
        """Advance every sequence that fits in one batch; an event for each token, those of a sequence in their order.

        Most get none or one; where tokens are forced, they all come at once.
        When a step fails or is interrupted, its sequences end: the cache may be ahead of what is known of them.
        """
        if not self.has_work:
            return []
        self._stop_reading()
        for sequence in self._admission.admit():
            if sequence.stats.preemptions == 0:
                sequence.stats.queue_seconds = perf_counter() - sequence.last_time
                self.instruments.note_start(sequence.stats)
        short = sum(sequence.num_behind for sequence in self._admission.running if sequence.is_short)
        planned = plan(self._admission.running, self.config.step_tokens, self._pace.long_tokens(short))
        return self._run(self._admission.make_room(list(within_scores(planned))))

    def idle_step(self) -> bool:
        """Read a piece of what `remember` was given. False when there is nothing to do, or requests have work."""
        if self.has_work:
            return False
        while self._reader is None and self._idle_jobs:
            self._start_reading(self._idle_jobs.popleft())
        reader = self._reader
        if reader is None:
            return False
        count = min(reader.num_behind, self._pace.rows_within(IDLE_SECONDS))
        self._run([PlannedRun(reader, count)])
        self.instruments.idle_tokens += count
        if reader.num_behind == 0:
            self._admission.release(reader)
            self._reader = None
        return True

    def check(self) -> None:
        """Invariants: every page and slot is free, or owned as it should be."""
        self._admission.check([] if self._reader is None else [self._reader])

    def _longest(self, request: Request) -> int:
        """Tokens, prompt included, after which the sequence ends at the latest."""
        if request.sampling.max_tokens is None:
            return self.config.context_len
        return min(self.config.context_len, len(request.token_ids) + request.sampling.max_tokens)

    def _run(self, planned: list[PlannedRun]) -> list[Event]:
        if not planned:
            return []
        planned = self._admission.with_snapshots(planned)
        try:
            started = perf_counter()
            batch = build(planned, self.model.rope)
            result = self._forward(batch)
            choices = self._sample(planned, result)
            for run in planned:
                self._admission.save_snapshots(run)
            return self._commit(planned, choices, perf_counter() - started)
        except BaseException:
            self._drop(planned)
            raise

    def _forward(self, batch: Batch) -> Result:
        if self._trial is None or self._trial.is_over:
            return self.model.forward(batch)
        return self._trial.run(self.model.forward, batch)

    def _sample(self, planned: list[PlannedRun], result: Result) -> dict[int, Choice]:
        """New token by sequence id, for the runs that reached their last known token; prompts' scores are noted."""
        return choose(wanted_rows(planned), result)

    def _commit(self, planned: list[PlannedRun], choices: dict[int, Choice], seconds: float) -> list[Event]:
        """Write down what the step did; finished sequences give their memory back."""
        self._note_pace(planned, seconds)
        self.instruments.steps += 1
        self.instruments.step_seconds.observe(seconds)
        events: list[Event] = []
        for run in planned:
            self._advance(run, seconds)
            if run.sequence.sequence_id in choices:
                events += self._commit_tokens(run.sequence, choices[run.sequence.sequence_id])
        return events

    def _note_pace(self, planned: list[PlannedRun], seconds: float) -> None:
        """What a step cost, but one with a long run of an answer's tokens: those are rows of neither kind."""
        short = sum(run.num_tokens for run in planned if run.sequence.is_short)
        long = [run for run in planned if not run.sequence.is_short]
        if all(run.sequence.role is Role.PROMPT for run in long):
            self._pace.note(short, sum(run.num_tokens for run in long), seconds)

    def _commit_tokens(self, sequence: Sequence, choice: Choice) -> Iterator[Event]:
        """The token drawn, and those that must follow it. Where each is to be scored they take a step each."""
        yield (event := self._commit_token(sequence, choice))
        guidance = sequence.guidance
        if guidance is None or sequence.request.top_logprobs is not None:
            return
        while event.finish is None and guidance.forced is not None:
            yield (event := self._commit_token(sequence, Choice(guidance.forced)))

    def _advance(self, run: PlannedRun, seconds: float) -> None:
        sequence, stats = run.sequence, run.sequence.stats
        if stats.generated_tokens == 0:
            stats.prompt_seconds += seconds
        else:
            stats.decode_seconds += seconds
        if stats.preemptions and run.num_tokens > 1:
            self.instruments.reread_tokens += run.num_tokens
        elif sequence.role is Role.PROMPT and sequence is not self._reader:
            self.instruments.read_tokens += run.num_tokens
        sequence.num_cached += run.num_tokens

    def _commit_token(self, sequence: Sequence, choice: Choice) -> Event:
        now = perf_counter()
        prompt_scored = sequence.told_scores()
        sequence.token_ids.append(choice.token_id)
        sequence.stats.generated_tokens += 1
        if sequence.guidance is not None:
            sequence.stats.forced_tokens += sequence.guidance.forced is not None
            sequence.guidance.push(choice.token_id)
            sequence.stats.cut, sequence.stats.thought_ended = sequence.guidance.cut, sequence.guidance.thought_ended
            sequence.stats.loose = sequence.guidance.loose
        self.instruments.note_token(sequence.stats, now - sequence.last_time)
        sequence.last_time = now
        finish = self._finish(sequence)
        if finish:
            self._admission.release(sequence)
            self.instruments.finished[finish] += 1
        stats = sequence.stats.copy()
        return Event(sequence.sequence_id, choice.token_id, stats, finish, choice.scored, prompt_scored)

    def _finish(self, sequence: Sequence) -> Finish | None:
        guidance = sequence.guidance
        if sequence.token_ids[-1] in sequence.request.sampling.stop_token_ids or (guidance and guidance.is_over):
            return Finish.STOP
        longest = self._longest(sequence.request)
        return Finish.LENGTH if (guidance and guidance.cut) or len(sequence.token_ids) >= longest else None

    def _start_reading(self, job: Request) -> None:
        sequence = Sequence(-1, job, reads_only=True)
        if self._memory.wants(sequence.prompt_ids, sequence.prompt_len, 1) and self._admission.start(sequence):
            self._reader = sequence

    def _stop_reading(self) -> None:
        """Requests come first; how far the reading has come is kept for them."""
        reader, self._reader = self._reader, None
        if reader is None:
            return
        assert reader.slot is not None
        if self._memory.wants(reader.prompt_ids, reader.num_cached, LEAST_TURN):
            self._admission.save(reader, reader.num_cached, reader.slot)
        self._admission.release(reader)
        self._idle_jobs.appendleft(reader.request)

    def _drop(self, planned: list[PlannedRun]) -> None:
        """A step ended in the middle."""
        for run in planned:
            self._admission.release(run.sequence)
            if run.sequence is self._reader:
                self._reader = None
