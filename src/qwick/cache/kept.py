"""Who owns which page and slot: sequences under way, and finished ones kept for a prompt that goes on from them.

A recurrent state cannot be cut back, so a kept sequence can be continued at two places only: at its end, and where a
snapshot of the state was written on the way. Who continues it takes it over as it is, alone; nothing is shared, so
nothing is copied on write. Pure bookkeeping; the bytes live in the backend.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qwick.cache.pages import PagePool
from qwick.cache.slots import SlotPool
from qwick.cache.spec import CacheSpec


@dataclass(slots=True)
class Held:
    """What one sequence owns.

    slot           the state after all tokens seen so far
    snapshot_slot  the state after the first `snapshot_len` of them; None: this sequence is not kept when it ends
    snapshot_len   0 while no snapshot was written
    """

    slot: int
    pages: list[int]
    snapshot_slot: int | None = None
    snapshot_len: int = 0

    @property
    def slots(self) -> list[int]:
        return [self.slot] if self.snapshot_slot is None else [self.slot, self.snapshot_slot]


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished sequence: the tokens it has seen, and what it owns."""

    token_ids: tuple[int, ...]
    held: Held

    def common_len(self, token_ids: Sequence[int]) -> int:
        """How many of `token_ids` need not be read again; at least one always remains, for its logits."""
        for length in (len(self.token_ids), self.held.snapshot_len):
            if 0 < length < len(token_ids) and self.token_ids[:length] == tuple(token_ids[:length]):
                return length
        return 0


@dataclass(frozen=True, slots=True)
class Granted:
    """Memory for a new sequence, which has seen its first `num_cached` tokens.

    rewinds  `slot` is ahead of that: `snapshot_slot` must be copied to it first
    """

    held: Held
    num_cached: int = 0
    rewinds: bool = False


class SequenceMemory:
    """Pages for whole contexts and slots for states, of `max_sequences` under way and `most_kept` kept ones.

    What is kept costs one slot more for each, for the snapshot; it gives its memory up when a sequence needs it.
    """

    def __init__(self, spec: CacheSpec, context_len: int, max_sequences: int, most_kept: int = 0) -> None:
        self._spec = spec
        self._max_sequences = max_sequences
        self._most_kept = most_kept
        self._num_under_way: int = 0
        self._num_keeping: int = 0  # those of them with a snapshot slot
        self._kept: list[Kept] = []  # oldest first
        self._pages = PagePool(max(max_sequences, most_kept) * spec.pages_for(context_len))
        self._slots = SlotPool(max(max_sequences + most_kept, 2 * most_kept))

    @property
    def num_pages(self) -> int:
        return self._pages.num_pages

    @property
    def num_slots(self) -> int:
        return self._slots.num_slots

    def take(self, token_ids: Sequence[int], longest: int, *, keep: bool) -> Granted | None:
        """Memory for a sequence that begins with `token_ids` and ends after `longest` tokens at the latest.

        With `keep` it gets a snapshot slot, if others under way leave one. The kept sequence that has seen most of
        `token_ids` is taken over; the others make room, oldest first. None while those under way hold too much.
        """
        num_pages = self._spec.pages_for(longest)
        free_pages = self._pages.num_free + sum(len(kept.held.pages) for kept in self._kept)
        if self._num_under_way == self._max_sequences or num_pages > free_pages:
            return None
        keep = keep and self._num_keeping < self._most_kept
        granted = self._take_over(token_ids, keep=keep)
        if granted is None:
            self._make_room(num_pages, 1 + keep)
            granted = Granted(Held(self._slots.take(), [], self._slots.take() if keep else None))
        held = granted.held
        self._trim(held, num_pages)
        self._make_room(num_pages - len(held.pages), 0)
        held.pages += self._pages.take(num_pages - len(held.pages))
        self._num_under_way += 1
        self._num_keeping += keep
        return granted

    def give_back(self, held: Held) -> None:
        """A sequence under way ended; nothing of it is kept."""
        self._end(held)
        self._free(held)

    def keep(self, held: Held, token_ids: Sequence[int]) -> None:
        """A sequence under way ended, having seen `token_ids`. Kept, if it has a snapshot slot; else given back."""
        self._end(held)
        if held.snapshot_slot is None or not token_ids:
            self._free(held)
            return
        self._trim(held, self._spec.pages_for(len(token_ids)))
        if len(self._kept) == self._most_kept:
            self._free(self._kept.pop(0).held)
        self._kept.append(Kept(tuple(token_ids), held))

    def check(self, under_way: Iterable[Held]) -> None:
        """Invariants: every page and slot is free, or owned by one sequence, under way or kept."""
        self._pages.check()
        self._slots.check()
        under_way = list(under_way)
        owners = [*under_way, *(kept.held for kept in self._kept)]
        pages = [page for held in owners for page in held.pages]
        slots = [slot for held in owners for slot in held.slots]
        assert len(set(pages)) == len(pages), "a page has two owners"
        assert len(set(slots)) == len(slots), "a slot has two owners"
        assert len(pages) + self._pages.num_free == self.num_pages, "pages leak"
        assert len(slots) + self._slots.num_free == self.num_slots, "slots leak"
        assert len(under_way) == self._num_under_way <= self._max_sequences, "sequences under way are miscounted"
        assert sum(held.snapshot_slot is not None for held in under_way) == self._num_keeping <= self._most_kept
        assert len(self._kept) <= self._most_kept, "too many are kept"
        for kept in self._kept:
            assert len(kept.held.pages) == self._spec.pages_for(len(kept.token_ids)), "a kept sequence has spare pages"
            assert 0 <= kept.held.snapshot_len <= len(kept.token_ids), "a snapshot of tokens that were not seen"

    def _take_over(self, token_ids: Sequence[int], *, keep: bool) -> Granted | None:
        """What the kept sequence with the most tokens in common owns; None when none begins as `token_ids` do."""
        found = max(self._kept, key=lambda kept: kept.common_len(token_ids), default=None)
        if found is None or (num_cached := found.common_len(token_ids)) == 0:
            return None
        self._kept.remove(found)
        held, rewinds = found.held, num_cached < len(found.token_ids)
        if keep or held.snapshot_slot is None:
            return Granted(held, num_cached, rewinds)
        slot, spare = (held.snapshot_slot, held.slot) if rewinds else (held.slot, held.snapshot_slot)
        self._slots.give_back(spare)
        return Granted(Held(slot, held.pages), num_cached)

    def _make_room(self, num_pages: int, num_slots: int) -> None:
        """Forget kept sequences, oldest first, until so much is free."""
        while self._kept and (num_pages > self._pages.num_free or num_slots > self._slots.num_free):
            self._free(self._kept.pop(0).held)

    def _trim(self, held: Held, num_pages: int) -> None:
        self._pages.give_back(held.pages[num_pages:])
        del held.pages[num_pages:]

    def _end(self, held: Held) -> None:
        self._num_under_way -= 1
        self._num_keeping -= held.snapshot_slot is not None

    def _free(self, held: Held) -> None:
        self._pages.give_back(held.pages)
        for slot in held.slots:
            self._slots.give_back(slot)
