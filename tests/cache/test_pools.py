"""Pages and slots: nothing is lost, nothing is held twice, whatever the order of taking and giving back."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qwick.cache.pages import PagePool
from qwick.cache.slots import SlotPool
from qwick.errors import CapacityError

NUM_PAGES, NUM_SLOTS = 12, 4


class Pools(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.pages, self.slots = PagePool(NUM_PAGES), SlotPool(NUM_SLOTS)
        self.held: list[tuple[int, list[int]]] = []

    @rule(count=st.integers(0, NUM_PAGES + 2))
    def take(self, count):
        free_pages, free_slots = self.pages.num_free, self.slots.num_free
        if free_slots == 0:
            with pytest.raises(CapacityError, match="4 recurrent-state slots"):
                self.slots.take()
        elif count > free_pages:
            with pytest.raises(CapacityError, match=f"{count} KV pages are needed and {free_pages} of {NUM_PAGES}"):
                self.pages.take(count)
            assert self.pages.num_free == free_pages
        else:
            self.held.append((self.slots.take(), self.pages.take(count)))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data):
        slot, pages = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.slots.give_back(slot)
        self.pages.give_back(pages)

    @invariant()
    def nothing_is_lost_or_shared(self):
        self.pages.check(page for _, held in self.held for page in held)
        self.slots.check()
        pages = [page for _, held in self.held for page in held]
        assert len(set(pages)) == len(pages) == NUM_PAGES - self.pages.num_free
        assert len({slot for slot, _ in self.held}) == len(self.held) == NUM_SLOTS - self.slots.num_free


TestPools = Pools.TestCase


def test_a_page_given_back_twice_is_noticed():
    pool = PagePool(2)
    pages = pool.take(1)
    pool.give_back(pages)
    with pytest.raises(AssertionError, match="given back"):
        pool.give_back(pages)


def test_a_shared_page_is_free_when_nobody_holds_it():
    pool = PagePool(3)
    pages = pool.take(2)
    pool.share(pages[:1])
    assert [pool.is_shared(page) for page in pages] == [True, False]
    pool.give_back(pages)
    assert pool.num_free == 2
    pool.check(pages[:1])
    for wrong in ([], pages, pages[:1] * 2):
        with pytest.raises(AssertionError):
            pool.check(wrong)
    pool.give_back(pages[:1])
    pool.check([])
    with pytest.raises(AssertionError, match="shared"):
        pool.share(pages[:1])


def test_a_slot_given_back_twice_is_noticed():
    pool = SlotPool(2)
    slot = pool.take()
    pool.give_back(slot)
    with pytest.raises(KeyError):
        pool.give_back(slot)
