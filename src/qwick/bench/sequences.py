"""Synthetic sequences on an opened model: a cache as after `depth` tokens, and the batches of a case, built by hand."""

from collections.abc import Iterator, Sequence

import numpy as np

from qwick.bench.cases import Case
from qwick.cache.spec import CacheSpec
from qwick.model.model import Model
from qwick.ops.contract import Batch, Int32, Role, Run
from qwick.ops.native import NativeWeight

STEP_TOKENS = 512  # most rows of a step, as the engine has it by default
_SEED = 0


class Sequences:
    """Room for all `cases` at once: slot i is sequence i's, and its pages lie one after another."""

    def __init__(self, model: Model[NativeWeight], cases: Sequence[Case], kv_format: str = "f16") -> None:
        self._model = model
        spec = CacheSpec(model.config.cache_shape(num_pages=0, num_slots=0))
        self._page_len = spec.shape.page_len
        self._num_slots = max(case.batch for case in cases)
        # Cases of many sequences are often shallow: as many pages as the largest case takes, dealt out anew by each.
        self._pages_each = {case: spec.pages_for(case.context_len) for case in cases}
        self._num_pages = max(case.batch * pages for case, pages in self._pages_each.items())
        self._rng = np.random.default_rng(_SEED)
        most_rows = max(STEP_TOKENS, self._num_slots)
        model.open(num_pages=self._num_pages, num_slots=self._num_slots, max_tokens=most_rows, kv_format=kv_format)
        self._fill()

    def _fill(self) -> None:
        """One page of a true prompt, copied over the whole cache: values are finite, and memory is touched before."""
        batch = self._batch([Run(self._page_len, Role.PROMPT, 0, 0, np.zeros(1, np.int32))], wanted=False)
        self._model.forward(batch)
        for page in range(1, self._num_pages):
            self._model.backend.copy_page(0, page)
        for slot in range(1, self._num_slots):
            self._model.backend.copy_slot(0, slot)

    def steps(self, case: Case) -> list[Batch]:
        """The batches of one pass. Each sequence is `depth` tokens long before the first, whatever ran before."""
        if case.is_prompt:
            return [self._batch(runs, wanted=True, case=case) for runs in self._prompt_runs(case)]
        return [
            self._batch([self._run(case, i, 1, case.depth + step) for i in range(case.batch)], wanted=True, case=case)
            for step in range(case.num_tokens)
        ]

    def run(self, steps: Sequence[Batch]) -> None:
        """The greedy choice of every wanted row is made, and thrown away."""
        for batch in steps:
            self._model.forward(batch)

    def _prompt_runs(self, case: Case) -> Iterator[list[Run]]:
        """Steps filled up to STEP_TOKENS, sequence after sequence."""
        runs: list[Run] = []
        room = STEP_TOKENS
        for i in range(case.batch):
            done = 0
            while done < case.num_tokens:
                count = min(room, case.num_tokens - done)
                runs.append(self._run(case, i, count, case.depth + done))
                done, room = done + count, room - count
                if room == 0:
                    yield runs
                    runs, room = [], STEP_TOKENS
        if runs:
            yield runs

    def _run(self, case: Case, sequence: int, num_tokens: int, context_len: int) -> Run:
        first = sequence * self._pages_each[case]
        num_pages = -(-(context_len + num_tokens) // self._page_len)
        pages: Int32 = np.arange(first, first + num_pages, dtype=np.int32)
        return Run(num_tokens, case.role, context_len, sequence, pages)

    def _batch(self, runs: Sequence[Run], *, wanted: bool, case: Case | None = None) -> Batch:
        """Random tokens. Wanted: the rows at which a case's sequence ends; each of a decode step."""
        positions = np.concatenate([np.arange(r.context_len, r.context_len + r.num_tokens) for r in runs])
        last_rows = np.cumsum([run.num_tokens for run in runs]) - 1
        if case is not None and case.is_prompt:
            last_rows = [
                row
                for row, run in zip(last_rows, runs, strict=True)
                if run.context_len + run.num_tokens == case.context_len
            ]
        cos, sin = self._model.rope.angles(positions)
        ids = self._rng.integers(0, self._model.config.vocab_size, len(positions)).astype(np.int32)
        rows = np.array(last_rows if wanted else [], np.int32)
        return Batch(ids, cos, sin, tuple(runs), rows, top_k=1)
