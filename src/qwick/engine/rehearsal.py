"""What an engine would remember of prompts, without a network: for `qwick cache explain`.

The same admission, prefix memory and plans as in an engine; only no kernel runs, so a long chat takes milliseconds.
"""

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

from qwick.cache.prefix import Miss
from qwick.cache.spec import CacheSpec
from qwick.engine.admission import Admission
from qwick.engine.config import EngineConfig
from qwick.engine.request import Request, Sequence
from qwick.engine.scheduler import PlannedRun
from qwick.errors import CapacityError


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What reading one prompt would have been. `instead`: ids that were remembered where the prompt parts from them."""

    prompt_tokens: int
    cached_tokens: int
    miss: Miss | None
    instead: tuple[int, ...]


class _NoBackend:
    """Bytes that nobody needs are not copied."""

    def copy_page(self, source: int, target: int) -> None: ...

    def save_state(self, slot: int, pages: AbstractSequence[int]) -> None: ...

    def load_state(self, pages: AbstractSequence[int], slot: int) -> None: ...


class Rehearsal:
    """One prompt after another, each read to its end before the next one comes."""

    def __init__(self, spec: CacheSpec, config: EngineConfig) -> None:
        self._config = config
        self._admission = Admission(spec, config, _NoBackend())
        self._ids = 0

    def read(self, request: Request, *, num_instead: int = 12) -> Rehearsed:
        """Raises CapacityError for a prompt that is too long."""
        admission = self._admission
        sequence = Sequence(self._ids, request)
        self._ids += 1
        instead = admission.memory.instead(sequence.prompt_ids, num_instead)
        if sequence.prompt_len >= self._config.context_len or not admission.start(sequence):
            raise CapacityError(
                f"a prompt of {sequence.prompt_len:,} tokens does not fit a context of {self._config.context_len:,}; "
                "raise --ctx-size"
            )
        stats = sequence.stats
        while sequence.num_behind:
            count = min(sequence.num_behind, self._config.step_tokens)
            (run,) = admission.with_snapshots([PlannedRun(sequence, count)])
            admission.save_snapshots(run)
            sequence.num_cached += run.num_tokens
        admission.release(sequence)
        return Rehearsed(sequence.prompt_len, stats.cached_tokens, stats.miss, tuple(instead.tolist()))
