"""A plan into a Batch: ids, angles, runs, wanted rows and the edits of their logits."""

from collections.abc import Sequence as AbstractSequence

import numpy as np

from qwick.engine.scheduler import PlannedRun
from qwick.engine.wanted import wanted_rows
from qwick.model.rope import RopeTable
from qwick.ops.contract import Batch, LogitEdits, Run
from qwick.sampling.penalties import Penalties

MAX_TOP_K = 128  # a wider choice is drawn from all logits
_NO_EDITS = np.empty(0, np.int32), np.empty((0, 3), np.float32)


def build(plan: AbstractSequence[PlannedRun], rope: RopeTable) -> Batch:
    """The batch of `plan`, runs in plan order, with its wanted rows (engine/wanted.py)."""
    ids: list[int] = []
    spans: list[range] = []
    runs: list[Run] = []
    for planned in plan:
        sequence, begin = planned.sequence, planned.sequence.num_cached
        end = begin + planned.num_tokens
        ids += sequence.token_ids[begin:end]
        spans.append(range(begin, end))
        assert sequence.slot is not None, "only sequences under way are planned"
        runs.append(
            Run(planned.num_tokens, sequence.role, begin, sequence.slot, sequence.pages, snapshots=planned.snapshots)
        )
    wanted = wanted_rows(plan)
    top_k = 1
    for row in wanted:
        if row.is_drawn and row.sequence.penalties:
            row.sequence.penalties.read(row.sequence.token_ids)
        top_k = _wider(top_k, 0 if row.needs_all else row.sequence.request.sampling.num_candidates)
    penalties = [row.penalties for row in wanted]
    cos, sin = rope.text_angles(spans)
    return Batch(
        np.array(ids, np.int32),
        cos,
        sin,
        tuple(runs),
        np.array([row.row for row in wanted], np.int32),
        top_k,
        edits=_edits(penalties) if any(penalties) else None,
    )


def _edits(penalties: AbstractSequence[Penalties | None]) -> LogitEdits:
    """Those of each wanted row; of one row alone nothing is copied."""
    entries = [_NO_EDITS if p is None else p.entries() for p in penalties]
    starts = np.cumsum([0, *(len(ids) for ids, _ in entries)]).astype(np.int32)
    if len(entries) == 1:
        return LogitEdits(starts, *entries[0])
    return LogitEdits(starts, *(np.concatenate(parts) for parts in zip(*entries, strict=True)))


def _wider(top_k: int, candidates: int) -> int:
    """The least top-k that serves both; 0 means all logits."""
    if top_k == 0 or candidates == 0 or candidates > MAX_TOP_K:
        return 0
    return max(top_k, candidates)
