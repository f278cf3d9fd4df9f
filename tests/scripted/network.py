"""A backend whose network is a script (`script.py`): everything of an engine but the arithmetic.

What a real network keeps of the tokens that it has read, this one keeps too: in a slot (the recurrent state) and in
pages (keys and values) the tokens themselves. So it draws the right logits only where the engine hands it the right
memory, and says so where it does not: a slot that is behind, a page of somebody else, a state that was overwritten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from qwick.errors import KernelError
from qwick.model.config import ModelConfig
from qwick.model.model import Model
from qwick.model.qwen3_5 import Qwen3_5, Tensors
from qwick.ops.contract import Batch, CacheShape, Float32, Int32, LogitEdits, Network, Result, Role, Run
from qwick.sampling.logprobs import edited
from qwick.sampling.sampler import largest
from tests.scripted.script import Favoured, Scripts
from tests.scripted.words import Words

_EMPTY = -1  # in pages; states are marked by what is less


@dataclass(frozen=True, slots=True)
class State:
    """After some tokens: which, and how many of them were a prompt's."""

    token_ids: tuple[int, ...] = ()
    prompt_len: int = 0

    def after(self, token_ids: Sequence[int], role: Role) -> "State":
        """And some more."""
        ids = (*self.token_ids, *token_ids)
        return State(ids, len(ids) if role is Role.PROMPT else self.prompt_len)


class ScriptedBackend:
    """`Backend` without weights. Raises KernelError for memory that is not what the engine takes it for."""

    isa, threads, threads_batch, weight_bytes, cache_bytes = "script", 1, 1, 0, 0

    def __init__(self, scripts: Scripts, vocab_size: int) -> None:
        self.scripts = scripts
        self.base = -1 - 1e-4 * np.arange(vocab_size, dtype=np.float32)  # of tokens that nothing speaks for
        self._slots: list[State] = []
        self._saved: dict[int, State] = {}  # by the mark in their pages
        self._marks = count(_EMPTY - 1, -1)
        self._pages: Int32 = np.empty((0, 0), np.int32)

    def open_cache(self, shape: CacheShape) -> None:
        self._slots = [State()] * shape.num_slots
        self._pages = np.full((shape.num_pages, shape.page_len), _EMPTY, np.int32)

    def copy_slot(self, source: int, target: int) -> None:
        self._slots[target] = self._slots[source]

    def copy_page(self, source: int, target: int) -> None:
        self._pages[target] = self._pages[source]

    def save_state(self, slot: int, pages: Sequence[int]) -> None:
        mark = next(self._marks)
        self._pages[list(pages)] = mark
        self._saved[mark] = self._slots[slot]

    def load_state(self, pages: Sequence[int], slot: int) -> None:
        mark = int(self._pages[pages[0], 0])
        if mark not in self._saved or not (self._pages[list(pages)] == mark).all():
            raise KernelError(f"the pages {list(pages)} hold no state, or something was written to them since")
        self._slots[slot] = self._saved[mark]

    def compile(self, network: Network[Any], *, max_tokens: int) -> "ScriptedProgram":
        return ScriptedProgram(self, max_tokens)

    def read(self, run: Run, token_ids: Sequence[int]) -> State:
        """The state before a run; slot and pages are as they are behind it."""
        state = self._slots[run.slot] if run.context_len else State()
        if len(state.token_ids) != run.context_len:
            raise KernelError(f"slot {run.slot} has seen {len(state.token_ids)} tokens, not {run.context_len}")
        pages, page_len = np.array(run.pages, np.int64), self._pages.shape[1]
        if tuple(self._pages[pages].ravel()[: run.context_len].tolist()) != state.token_ids:
            raise KernelError(f"the pages of slot {run.slot} hold other tokens than it has seen")
        self._slots[run.slot] = state.after(token_ids, run.role)
        new = np.arange(run.context_len, run.context_len + len(token_ids))
        self._pages[pages[new // page_len], new % page_len] = token_ids
        for length, slot in run.snapshots:
            self._slots[slot] = state.after(token_ids[:length], run.role)
        return state


class ScriptedProgram:
    """The trunk: batches in, logits out."""

    buffer_bytes = 0

    def __init__(self, backend: ScriptedBackend, max_tokens: int) -> None:
        self._backend, self._max_tokens = backend, max_tokens

    def run(self, batch: Batch) -> Result:
        if batch.num_tokens > self._max_tokens:
            raise KernelError(f"a batch of {batch.num_tokens} rows; the program was compiled for {self._max_tokens}")
        favoured = [self._backend.scripts.favoured(s.token_ids, s.prompt_len) for s in self._wanted(batch)]
        rows = [self._logits(*row, batch.top_k) for row in zip(favoured, _edits(batch), strict=True)]
        if not batch.top_k:
            return Result(logits=np.array([logits for _, logits in rows], np.float32))
        best = [largest(logits, batch.top_k) for _, logits in rows]
        return Result(
            top_ids=np.array([ids[order] for (ids, _), order in zip(rows, best, strict=True)], np.int32),
            top_logits=np.array([logits[order] for (_, logits), order in zip(rows, best, strict=True)], np.float32),
        )

    def _wanted(self, batch: Batch) -> list[State]:
        """After the tokens of the wanted rows."""
        found: list[State] = []
        begin = 0
        for run in batch.runs:
            end = begin + run.num_tokens
            ids = batch.token_ids[begin:end].tolist()
            before = self._backend.read(run, ids)
            rows = [row - begin for row in batch.wanted_rows.tolist() if begin <= row < end]
            found += [before.after(ids[: row + 1], run.role) for row in rows]
            begin = end
        return found

    def _logits(self, favoured: Favoured, edits: tuple[Int32, Float32], top_k: int) -> tuple[Int32, Float32]:
        """Ids, ascending, and their logits: of all tokens, or of those among which the `top_k` largest are."""
        base, (edited_ids, values) = self._backend.base, edits
        ids = np.arange(len(base), dtype=np.int32)
        if top_k:  # of those that nothing speaks for the lowest lead
            plain = ids[: top_k + len(favoured) + len(edited_ids)]
            ids = np.unique(np.concatenate([plain, list(favoured), edited_ids])).astype(np.int32)
        logits = base[ids]
        logits[np.searchsorted(ids, list(favoured))] = list(favoured.values())
        return ids, edited(logits, np.searchsorted(ids, edited_ids).astype(np.int32), values)


def _edits(batch: Batch) -> list[tuple[Int32, Float32]]:
    """Of each wanted row."""
    edits = batch.edits or LogitEdits(np.zeros(len(batch.wanted_rows) + 1, np.int32), *_NO_EDITS)
    spans = zip(edits.row_starts[:-1], edits.row_starts[1:], strict=True)
    return [(edits.token_ids[begin:end], edits.values[begin:end]) for begin, end in spans]


_NO_EDITS = np.empty(0, np.int32), np.empty((0, 3), np.float32)


def scripted_model(config: ModelConfig, words: Words) -> Model[Any]:
    """For an `Engine`."""
    backend: Any = ScriptedBackend(Scripts(words), config.vocab_size)
    return Model(Qwen3_5(config, Tensors({})), backend)
