"""How many threads are fastest, found from steps that are run anyway: none is run only to be timed.

The number of threads changes no result (ops/contract.py), so the first steps of a model on a machine take turns with
it. That costs what the slower numbers lose in a few steps, and sees the steps as they are. Decoding is tried on steps
of one token of one sequence, prompts on full steps: only equal work can be compared. The first steps of either kind run
with the usual number, so a prompt that fills one step at most comes as soon as ever.
"""

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

from qwick.ops.contract import Batch, Result, Role

DECODE_ROUNDS, PROMPT_ROUNDS = 5, 3
WARM_UP = 2  # decode steps that are not counted
GAIN = 0.97  # another number than the usual one must take less than this share of its time
_EXCEPTIONS = 1  # rounds in which it may have been slower nevertheless: the machine has other work


def thread_candidates(usual: int, most: int) -> tuple[int, ...]:
    """The usual number first; then three quarters and half of it, and all hardware threads."""
    return tuple(dict.fromkeys((usual, -(-usual * 3 // 4), -(-usual // 2), max(usual, most))))


class _Turns:
    """One kind of steps. Every second round runs backwards, so that a slow drift hits all numbers alike."""

    def __init__(self, candidates: Sequence[int], rounds: int, warm_up: int) -> None:
        there, back = list(candidates), list(reversed(candidates))
        self._usual = there[0]
        turns = [there[0]] * warm_up + [count for i in range(rounds) for count in (back if i % 2 else there)]
        self._left, self._uncounted = turns, warm_up
        self._seconds: dict[int, list[float]] = {count: [] for count in candidates}

    @property
    def is_over(self) -> bool:
        return not self._left

    @property
    def next(self) -> int:
        return self._left[0]

    def note(self, seconds: float) -> None:
        """What the step with `next` threads took."""
        count = self._left.pop(0)
        if self._uncounted:
            self._uncounted -= 1
        else:
            self._seconds[count].append(seconds)

    @property
    def best(self) -> int:
        """The usual number, unless another one is clearly faster."""
        usual = self._seconds[self._usual]
        limit, found = GAIN * median(usual), self._usual
        for count, seconds in self._seconds.items():
            slower = sum(ours >= theirs for ours, theirs in zip(seconds, usual, strict=True))
            if count != self._usual and slower <= _EXCEPTIONS and median(seconds) < limit:
                limit, found = median(seconds), count
        return found


class ThreadTrial:
    """Stands between an engine and its model until it is over.

    threads, threads_batch  what is used now, of decode and of prompt steps; the numbers to try, usual one first; one
                            number alone is settled and not tried
    full_rows               rows of a full step
    set_threads             of the backend
    settled                 called with both numbers as soon as one is found; None: not known yet
    """

    def __init__(
        self,
        threads: Sequence[int],
        threads_batch: Sequence[int],
        *,
        full_rows: int,
        set_threads: Callable[[int, int], None],
        settled: Callable[[int | None, int | None], None],
    ) -> None:
        self._decode = _Turns(threads, DECODE_ROUNDS, WARM_UP) if len(threads) > 1 else None
        self._prompt = _Turns(threads_batch, PROMPT_ROUNDS, 1) if len(threads_batch) > 1 else None
        self._now, self._full_rows = (threads[0], threads_batch[0]), full_rows
        self._set_threads, self._settled = set_threads, settled

    @property
    def is_over(self) -> bool:
        return self._decode is None and self._prompt is None

    def run(self, forward: Callable[[Batch], Result], batch: Batch) -> Result:
        """The step, with the threads whose turn it is."""
        is_prompt = any(run.role is Role.PROMPT for run in batch.runs)
        turns = self._prompt if is_prompt else self._decode
        comparable = batch.num_tokens == (self._full_rows if is_prompt else 1)
        if turns is None or not comparable:
            return forward(batch)
        self._set_threads(*self._with(turns.next, is_prompt))
        try:
            begin = perf_counter()
            result = forward(batch)
            turns.note(perf_counter() - begin)
            return result
        finally:
            if turns.is_over:
                self._settle(turns.best, is_prompt)
            self._set_threads(*self._now)

    def _with(self, count: int, is_prompt: bool) -> tuple[int, int]:
        return (self._now[0], count) if is_prompt else (count, self._now[1])

    def _settle(self, count: int, is_prompt: bool) -> None:
        self._now = self._with(count, is_prompt)
        if is_prompt:
            self._prompt = None
        else:
            self._decode = None
        threads, threads_batch = self._now
        self._settled(None if self._decode else threads, None if self._prompt else threads_batch)
