"""Who waits, who is under way, and the memory they get: admission, growth, pre-emption, snapshots.

The oldest sequence always gets on: memory for one whole context exists, younger ones make way for it, and they keep
their place in the queue.
"""

from bisect import insort
from collections.abc import Iterable
from collections.abc import Sequence as AbstractSequence
from typing import Protocol

from qwick.cache.prefix import LEAST_GAP, PrefixMemory
from qwick.cache.slots import SlotPool
from qwick.cache.spec import CacheSpec
from qwick.cache.trie import common_len
from qwick.engine.config import EngineConfig
from qwick.engine.request import Sequence
from qwick.engine.scheduler import PlannedRun

TRANSIT_SLOTS = 2  # into which one step writes states that become snapshots
LEAST_TURN = 8  # tokens that a snapshot at a prompt's last boundary must save: the next turn will begin there


def wanted_pages(spec: CacheSpec, config: EngineConfig) -> int:
    """With so many no sequence ever waits for memory: whole contexts, and what is remembered beside them."""
    spare = config.cache_memory // max(spec.page_bytes, 1)
    return config.max_sequences * spec.pages_for(config.context_len) + spare


def needed_slots(config: EngineConfig) -> int:
    """Of the cache: one for each sequence under way, and those for transit where anything is remembered."""
    return config.max_sequences + TRANSIT_SLOTS * (config.cache_memory > 0)


class CacheCopies(Protocol):
    """Of a Backend, what moves bytes about in its cache (ops/contract.py)."""

    def copy_page(self, source: int, target: int) -> None: ...

    def save_state(self, slot: int, pages: AbstractSequence[int]) -> None: ...

    def load_state(self, pages: AbstractSequence[int], slot: int) -> None: ...


class Admission:
    """Pages and slots of `backend` (its cache is opened later, with `num_pages` and `num_slots`)."""

    def __init__(self, spec: CacheSpec, config: EngineConfig, backend: CacheCopies) -> None:
        num_pages = wanted_pages(spec, config) if config.num_pages is None else config.num_pages
        self.memory = PrefixMemory(spec, num_pages, remembers=config.cache_memory > 0)
        self.slots = SlotPool(config.max_sequences)
        self.num_slots = needed_slots(config)
        self.waiting: list[Sequence] = []  # by age
        self.running: list[Sequence] = []  # by age
        self.num_preemptions = 0
        self._backend = backend

    def admit(self) -> list[Sequence]:
        """Start those who wait, oldest first, while there is memory for them. Returns them."""
        admitted: list[Sequence] = []
        for sequence in list(self.waiting):
            if self.slots.num_free == 0:
                break
            if self._will_be_spared(sequence):
                continue
            if not self.start(sequence):
                break
            self.waiting.remove(sequence)
            insort(self.running, sequence, key=_age)
            admitted.append(sequence)
        return admitted

    def start(self, sequence: Sequence) -> bool:
        """Give a sequence a slot and pages for its prompt, from the longest beginning of it that is remembered."""
        match = self.memory.find(sequence.reusable_ids)
        opened = self.memory.open(match, sequence.prompt_len)
        if opened is None:
            return False
        sequence.slot, sequence.pages, sequence.num_cached = self.slots.take(), opened.pages, match.length
        if opened.state:
            self._backend.load_state(opened.state, sequence.slot)
        if opened.partial is not None:
            self._backend.copy_page(opened.partial, opened.pages[opened.partial_index])
        sequence.snapshots = []
        sequence.want_snapshots(sequence.request.boundaries)
        if match.length + LEAST_GAP <= match.num_common < sequence.prompt_len:
            sequence.want_snapshots([match.num_common])  # others will part here too
        if sequence.stats.preemptions == 0:
            sequence.stats.cached_tokens, sequence.stats.miss = match.length, match.miss
        return True

    def make_room(self, planned: list[PlannedRun]) -> list[PlannedRun]:
        """The plan with pages for every run; where there are none, the youngest sequences go back to the queue."""
        for run in sorted(planned, key=lambda run: run.sequence.sequence_id):
            sequence = run.sequence
            while sequence.slot is not None and not self.memory.grow(
                sequence.pages, sequence.num_cached + run.num_tokens
            ):
                self._preempt(self.running[-1])
        return [run for run in planned if run.sequence.slot is not None]

    def with_snapshots(self, planned: list[PlannedRun]) -> list[PlannedRun]:
        """The plan with what the step shall write down of states on its way: a run's last places first.

        At a run's end its own slot has the state. So when the transit slots are taken a run ends where its is wanted.
        """
        transit = list(range(self.slots.num_slots, self.num_slots))
        found: list[PlannedRun] = []
        for run in planned:
            begin, num_tokens = run.sequence.num_cached, run.num_tokens
            wanted = [place - begin for place in self._worth(run)]
            if wanted and not transit:
                num_tokens = wanted[-1]
            on_the_way = [after for after in wanted if after < num_tokens]
            last = on_the_way[max(len(on_the_way) - len(transit), 0) :]
            snapshots = tuple((after, transit.pop()) for after in last)
            found.append(PlannedRun(run.sequence, num_tokens, snapshots, keeps_end=num_tokens in wanted))
        return found

    def save_snapshots(self, run: PlannedRun) -> None:
        """Of a step that has just run."""
        begin, slot = run.sequence.num_cached, run.sequence.slot
        for after, transit in run.snapshots:
            self.save(run.sequence, begin + after, transit)
        if run.keeps_end and slot is not None:
            self.save(run.sequence, begin + run.num_tokens, slot)

    def save(self, sequence: Sequence, place: int, slot: int) -> None:
        """Remember the state that `slot` holds: that after `place` tokens of the prompt."""
        state = self.memory.remember(sequence.prompt_ids[:place], sequence.pages)
        if state is not None:
            self._backend.save_state(slot, state)

    def release(self, sequence: Sequence) -> None:
        """A sequence ended or gives up its memory."""
        if sequence.slot is not None:
            self.slots.give_back(sequence.slot)
            sequence.slot = None
            self.memory.release(sequence.pages)
        if sequence in self.running:
            self.running.remove(sequence)

    def check(self, others: Iterable[Sequence] = ()) -> None:
        """Invariants: every page and slot is free or owned as it should be; only those under way own any."""
        under_way = [*self.running, *others]
        self.slots.check()
        slots = [sequence.slot for sequence in under_way]
        assert None not in slots, "a sequence under way without a slot"
        assert len(set(slots)) == len(slots), "a slot has two owners"
        assert len(slots) + self.slots.num_free == self.slots.num_slots, "slots leak"
        assert all(s.slot is None and not s.pages for s in self.waiting), "a waiting sequence holds memory"
        self.memory.check([sequence.pages for sequence in under_way])

    def _worth(self, run: PlannedRun) -> list[int]:
        """Places within a run where a snapshot pays, beside those that are known and those before it in the run."""
        found: list[int] = []
        for place in _within(run):
            is_apart = not found or place - found[-1] >= _least_gap(run.sequence, place)
            if is_apart and self._wants(run.sequence, place):
                found.append(place)
        return found

    def _wants(self, sequence: Sequence, place: int) -> bool:
        return self.memory.wants(sequence.prompt_ids, place, _least_gap(sequence, place))

    def _will_be_spared(self, sequence: Sequence) -> bool:
        """Whether somebody is just reading what this prompt begins with, so that waiting saves reading it twice."""
        if not self.memory.remembers:
            return False
        reusable = sequence.reusable_ids
        known = self.memory.find(reusable).length
        for other in self.running:
            shared = min(common_len(other.prompt_ids, reusable), len(reusable) - 1)
            if shared <= other.num_cached or shared - known < LEAST_GAP:
                continue
            other.want_snapshots([shared])
            least = max(known + LEAST_GAP, other.num_cached + 1)
            if any(least <= place <= shared and self._wants(other, place) for place in other.snapshots):
                return True
        return False

    def _preempt(self, sequence: Sequence) -> None:
        self.release(sequence)
        sequence.num_cached = 0
        sequence.stats.preemptions += 1
        self.num_preemptions += 1
        insort(self.waiting, sequence, key=_age)


def _age(sequence: Sequence) -> int:
    return sequence.sequence_id


def _least_gap(sequence: Sequence, place: int) -> int:
    """Tokens that a snapshot there must save."""
    return LEAST_TURN if place == max(sequence.request.boundaries, default=0) else LEAST_GAP


def _within(run: PlannedRun) -> list[int]:
    """Places in this run after which the state is wanted."""
    begin = run.sequence.num_cached
    return [place for place in run.sequence.snapshots if begin < place <= begin + run.num_tokens]
