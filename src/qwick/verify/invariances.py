"""Bitwise invariances on the loaded model: a token's numbers do not depend on how it was scheduled.

One prompt and some tokens after it, fed in one way, give logits; fed in any other way they must give the same bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwick.model.model import Model
from qwick.ops.contract import Batch, Commit, CommitBatch, Float32, Role, Run
from qwick.ops.native import NativeBackend
from qwick.verify.report import Check, holds

GROUP = "same bits"
PROMPT_LEN, NUM_DECODED = 100, 4
CUTS = (37, 64, 65)  # of the prompt: inside a page, at its end, one token
SNAPSHOT_AT = 70
NUM_SLOTS, PAGES_EACH = 3, 2  # pages of 64 tokens


@dataclass(frozen=True, slots=True)
class Line:
    """A sequence's tokens and its place in the cache: pages slot * PAGES_EACH and on."""

    ids: NDArray[np.int32]
    slot: int

    def run(self, begin: int, end: int, role: Role, **changes: Any) -> Run:
        pages = range(self.slot * PAGES_EACH, (self.slot + 1) * PAGES_EACH)
        return Run(end - begin, role, begin, self.slot, tuple(pages), **changes)


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens [begin, end) of a line, fed in one step."""

    line: Line
    begin: int
    end: int
    role: Role = Role.PROMPT
    commit: bool = True
    snapshots: tuple[tuple[int, int], ...] = ()


def invariance_checks(model: Model[Any], backend: NativeBackend, threads: int) -> Iterator[Check]:
    """Opens the model anew with a small cache; `threads` is the other number of threads beside 1."""
    model.open(num_pages=NUM_SLOTS * PAGES_EACH, num_slots=NUM_SLOTS, max_tokens=2 * PROMPT_LEN)
    rng = np.random.default_rng(3)
    ids = rng.integers(0, model.config.vocab_size, (2, PROMPT_LEN + NUM_DECODED)).astype(np.int32)
    a, b = Line(ids[0], 0), Line(ids[1], 1)
    backend.set_threads(threads, threads)
    whole = _play(model, a)
    yield holds(GROUP, "finite logits", bool(np.isfinite(whole).all()), f"{whole.size:,} logits")

    def same(name: str, other: Float32, detail: str) -> Check:
        different = int((whole.view(np.uint32) != other.view(np.uint32)).sum())
        return holds(GROUP, name, different == 0, f"{different:,} logits differ" if different else detail)

    yield same("again", _play(model, a), "the same prompt once more, in a used slot")
    yield same("in chunks", _play(model, a, CUTS), f"the prompt cut at {', '.join(map(str, CUTS))}")
    yield same("in company", _play_together(model, a, b), "another sequence in every step")
    backend.set_threads(1, 1)
    yield same("with one thread", _play(model, a), f"1 thread and {threads}")
    backend.set_threads(threads, threads)
    yield same("from a kept state", _resume(model, backend, a), f"continued from a snapshot after {SNAPSHOT_AT} tokens")
    yield same("drafted", _draft(model, a), f"{NUM_DECODED} tokens verified in one step, then committed")


def _play(model: Model[Any], line: Line, cuts: Sequence[int] = ()) -> Float32:
    """Logits of the last prompt token and of each decoded one: [1 + NUM_DECODED, vocab]."""
    bounds = [0, *cuts, PROMPT_LEN]
    logits = [_step(model, [Part(line, begin, end)]) for begin, end in pairwise(bounds)]
    return np.concatenate([logits[-1], *_decode(model, line)])


def _decode(model: Model[Any], line: Line) -> list[Float32]:
    places = range(PROMPT_LEN, PROMPT_LEN + NUM_DECODED)
    return [_step(model, [Part(line, place, place + 1, Role.DECODE)]) for place in places]


def _play_together(model: Model[Any], line: Line, other: Line) -> Float32:
    """The other's prompt is read in pieces while this one decodes: both roles in one step."""
    rows = [_step(model, [Part(line, 0, PROMPT_LEN), Part(other, 0, 20)])]
    for i in range(NUM_DECODED):
        place = PROMPT_LEN + i
        beside = Part(other, 20 + 10 * i, 30 + 10 * i)
        rows.append(_step(model, [Part(line, place, place + 1, Role.DECODE), beside]))
    return np.concatenate(rows)


def _resume(model: Model[Any], backend: NativeBackend, line: Line) -> Float32:
    """Snapshot inside the prompt, pages copied (the last one partly full), the rest of the prompt from there."""
    kept = Line(line.ids, 2)
    _step(model, [Part(line, 0, PROMPT_LEN, snapshots=((SNAPSHOT_AT, kept.slot),))])
    for page in range(PAGES_EACH):
        backend.copy_page(line.slot * PAGES_EACH + page, kept.slot * PAGES_EACH + page)
    return np.concatenate([_step(model, [Part(kept, SNAPSHOT_AT, PROMPT_LEN)]), *_decode(model, kept)])


def _draft(model: Model[Any], line: Line) -> Float32:
    """All decoded tokens verified at once; half of them committed, the others decoded after that."""
    first = _step(model, [Part(line, 0, PROMPT_LEN)])
    end, half = PROMPT_LEN + NUM_DECODED, NUM_DECODED // 2
    verified = _step(model, [Part(line, PROMPT_LEN, end, Role.DECODE, commit=False)], rows=NUM_DECODED)
    model.commit(CommitBatch((Commit(line.slot, half, PROMPT_LEN),)))
    decoded = [_step(model, [Part(line, place, place + 1, Role.DECODE)]) for place in range(PROMPT_LEN + half, end)]
    return np.concatenate([first, verified[:half], *decoded])


def _step(model: Model[Any], parts: list[Part], rows: int = 1) -> Float32:
    """One batch -> logits of the last `rows` tokens of its first part, copied."""
    ids = np.concatenate([p.line.ids[p.begin : p.end] for p in parts])
    cos, sin = model.rope.angles(np.concatenate([np.arange(p.begin, p.end) for p in parts]))
    runs = tuple(p.line.run(p.begin, p.end, p.role, commit=p.commit, snapshots=p.snapshots) for p in parts)
    count = parts[0].end - parts[0].begin
    logits = model.forward(Batch(ids, cos, sin, runs, np.arange(count - rows, count, dtype=np.int32))).logits
    assert logits is not None
    return logits.copy()
