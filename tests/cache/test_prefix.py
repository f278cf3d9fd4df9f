"""Pages and snapshots under one budget: nothing leaks, nothing under way is taken away, what is worth most stays."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qwick.cache.prefix import MissReason, PrefixMemory
from qwick.cache.spec import CacheSpec
from qwick.model.config import parse_config
from tests.checkpoints import small_config

SHAPE = parse_config(small_config()).cache_shape(num_pages=0, num_slots=0)
SPEC = CacheSpec(SHAPE)
PAGE = SHAPE.page_len
STATE = SPEC.state_pages
CONVERSATIONS = [np.random.default_rng(seed).integers(0, 9, 8 * PAGE).astype(np.int32) for seed in range(3)]
for other in CONVERSATIONS[1:]:
    other[: 2 * PAGE + 5] = CONVERSATIONS[0][: 2 * PAGE + 5]


def read(memory, ids, places, keep=False):
    """A sequence that reads `ids` and takes snapshots at `places`. Returns its match, and its pages if kept."""
    match = memory.find(ids)
    opened = memory.open(match, len(ids))
    assert opened is not None
    for place in places:
        if place > match.length and memory.wants(ids, place, 1):
            memory.remember(ids[:place], opened.pages)
    if keep:
        return match, opened.pages
    memory.release(opened.pages)
    memory.check([])
    return match, None


class Memory(RuleBasedStateMachine):
    """Sequences of three conversations with a common beginning come, read, take snapshots, grow and go."""

    def __init__(self):
        super().__init__()
        self.memory = PrefixMemory(SPEC, 12 + 3 * STATE)
        self.under_way = []

    @rule(which=st.integers(0, 2), length=st.integers(1, 6 * PAGE))
    def come(self, which, length):
        ids = CONVERSATIONS[which][:length]
        match = self.memory.find(ids)
        assert match.length < length
        free = self.memory.num_pages - self.memory.num_in_use
        opened = self.memory.open(match, length)
        if opened is None:
            assert free < SPEC.pages_for(length)
            return
        assert len(opened.pages) == SPEC.pages_for(length)
        assert opened.partial is None or match.length % PAGE > 0
        self.under_way.append((ids, opened.pages))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def take_a_snapshot(self, data):
        ids, pages = data.draw(st.sampled_from(self.under_way))
        length = data.draw(st.integers(1, len(ids)))
        wanted = self.memory.wants(ids, length, 1)
        in_use = self.memory.num_in_use
        state = self.memory.remember(ids[:length], pages)
        assert (state is not None) == wanted
        if state is not None:
            assert len(state) == STATE
            assert not set(state) & {page for _, held in self.under_way for page in held}
            longer = np.append(ids[:length], np.int32(99))
            assert self.memory.find(longer).length == length
        assert self.memory.num_in_use == in_use

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), more=st.integers(1, 3 * PAGE))
    def grow(self, data, more):
        index = data.draw(st.integers(0, len(self.under_way) - 1))
        ids, pages = self.under_way[index]
        free = self.memory.num_pages - self.memory.num_in_use
        before = list(pages)
        grown = self.memory.grow(pages, len(ids) + more)
        assert grown == (SPEC.pages_for(len(ids) + more) - len(before) <= free)
        assert pages[: len(before)] == before

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def go(self, data):
        _, pages = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.memory.release(pages)
        assert pages == []

    @invariant()
    def nothing_is_lost(self):
        self.memory.check([pages for _, pages in self.under_way])

    def teardown(self):
        for _, pages in self.under_way:
            self.memory.release(pages)
        everything: list[int] = []
        assert self.memory.grow(everything, self.memory.num_pages * PAGE)
        assert self.memory.num_snapshots == 0
        self.memory.release(everything)
        assert self.memory.num_free == self.memory.num_pages


TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_whole_pages_are_shared_and_a_partial_one_is_copied():
    memory = PrefixMemory(SPEC, 40 + STATE)
    ids = CONVERSATIONS[0]
    _, first = read(memory, ids[: 4 * PAGE], [2 * PAGE + 3], keep=True)
    assert first is not None
    opened = memory.open(memory.find(ids[: 3 * PAGE]), 3 * PAGE)
    assert opened is not None
    assert opened.pages[:2] == first[:2]
    assert opened.pages[2] not in first
    assert (opened.partial, opened.partial_index) == (first[2], 2)
    assert len(opened.state) == STATE


@pytest.mark.parametrize("room", range(5))
def test_who_goes_on_from_a_snapshot_needs_no_more_room_than_its_length(room):
    """Else a sequence that is alone might wait for ever. The snapshot itself makes room: it was noted where it lay."""
    ids = CONVERSATIONS[0]
    memory = PrefixMemory(SPEC, max(3, 2 + STATE) + room)
    read(memory, ids[: 2 * PAGE], [PAGE + 7])
    match = memory.find(ids[: memory.num_pages * PAGE])
    lay = match.snapshot.pages[1], match.snapshot.state
    opened = memory.open(match, memory.num_pages * PAGE)
    assert match.length == PAGE + 7
    assert opened is not None
    assert opened.state == tuple(lay[1])
    assert opened.partial == lay[0] or opened.pages[1] == lay[0]
    memory.check([opened.pages])


@pytest.mark.parametrize(
    ("asked", "length", "reason", "at"),
    [
        (np.array([9, 9, 9]), 0, MissReason.NEW, 0),
        (np.append(CONVERSATIONS[0][:90], 99), 80, MissReason.DIVERGED, 90),
        (np.append(CONVERSATIONS[0][:70], 99), 0, MissReason.DIVERGED, 70),
        (CONVERSATIONS[0][:80], 0, MissReason.UNSAVED, 80),
        (np.append(CONVERSATIONS[0][:300], 99), 300, None, 0),
        (np.append(CONVERSATIONS[0][:80], 99), 80, MissReason.DIVERGED, 80),
    ],
)
def test_it_says_why_it_does_not_know_more(asked, length, reason, at):
    memory = PrefixMemory(SPEC, 40 + 4 * STATE)
    read(memory, CONVERSATIONS[0][:301], [80, 300])
    match = memory.find(asked.astype(np.int32))
    assert match.length == length
    assert (match.miss and match.miss.reason, match.miss.at if match.miss else 0) == (reason, at)


def test_it_knows_what_it_has_forgotten():
    memory = PrefixMemory(SPEC, 4 + STATE)
    read(memory, CONVERSATIONS[0][: 3 * PAGE], [2 * PAGE])
    read(memory, CONVERSATIONS[1][::-1].copy()[: 3 * PAGE], [2 * PAGE])
    match = memory.find(CONVERSATIONS[0][: 3 * PAGE])
    assert match.length == 0
    assert match.miss is not None
    assert (match.miss.reason, match.miss.at) == (MissReason.FORGOTTEN, 2 * PAGE)
    assert "--cache-memory" in str(match.miss)


def test_what_saves_more_for_its_memory_stays():
    """Two snapshots of equal age fit: the one that a long reading stands behind is kept."""
    memory = PrefixMemory(SPEC, 8 + 2 * STATE)
    rng = np.random.default_rng(5)
    long, short, new = (rng.integers(100, 200, n).astype(np.int32) for n in (6 * PAGE, PAGE, PAGE))
    read(memory, long, [len(long) - 1])
    read(memory, short, [len(short) - 1])
    read(memory, new, [len(new) - 1])
    assert [memory.find(ids).length > 0 for ids in (long, short, new)] == [True, False, True]


def test_what_nobody_asks_for_grows_old():
    """Ever new short prompts push a long one out at last; one that is used stays."""
    for used in (False, True):
        memory = PrefixMemory(SPEC, 12 + 3 * STATE)
        rng = np.random.default_rng(6)
        long = rng.integers(100, 200, 6 * PAGE).astype(np.int32)
        read(memory, long, [len(long) - 1])
        for _ in range(200):
            read(memory, rng.integers(0, 100, PAGE).astype(np.int32), [PAGE - 1])
            if used:
                assert read(memory, long, [])[0].length == len(long) - 1
        assert (memory.find(long).length > 0) == used


def test_nothing_is_remembered_where_nothing_shall_be():
    memory = PrefixMemory(SPEC, 40 + STATE, remembers=False)
    assert not memory.wants(CONVERSATIONS[0], 200, 1)
    assert not PrefixMemory(replace(SPEC), STATE - 1).wants(CONVERSATIONS[0], 200, 1)  # no state fits
