"""Who holds which recurrent-state slot. Pure bookkeeping; the bytes live in the backend."""

from qwick.errors import CapacityError


class SlotPool:
    """`num_slots` slots, each free or owned by one sequence, for its state or its snapshot."""

    def __init__(self, num_slots: int) -> None:
        self._free = list(range(num_slots - 1, -1, -1))
        self._held: set[int] = set()
        self.num_slots = num_slots

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """A free slot; what it holds is of no meaning (a run with context_len 0 starts from zero)."""
        if not self._free:
            raise CapacityError(f"all {self.num_slots} recurrent-state slots are in use")
        slot = self._free.pop()
        self._held.add(slot)
        return slot

    def give_back(self, slot: int) -> None:
        self._held.remove(slot)
        self._free.append(slot)

    def check(self) -> None:
        """Invariant: free and held are disjoint and together all slots."""
        free = set(self._free)
        assert len(free) == len(self._free), "a slot is free twice"
        assert not free & self._held, "a slot is free and held"
        assert free | self._held == set(range(self.num_slots)), "a slot is lost"
