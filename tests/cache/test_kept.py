"""Memory of sequences under way and kept: nothing is lost or shared, and what is kept never keeps others waiting."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qwick.cache.kept import Held, SequenceMemory
from qwick.cache.spec import CacheSpec
from qwick.ops.contract import AttentionHeads, CacheShape, DeltaHeads

SHAPE = CacheShape(
    num_attention_layers=1,
    num_delta_layers=1,
    attention=AttentionHeads(num_q=1, num_kv=1, head_dim=8, rotary_dim=4),
    delta=DeltaHeads(num_k=1, num_v=1, k_dim=8, v_dim=8),
    conv_kernel=4,
    num_pages=0,
    num_slots=0,
    page_len=4,
)
SPEC = CacheSpec(SHAPE)
CONTEXT_LEN = 20
# Few tokens, so that prompts often begin alike.
PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=CONTEXT_LEN - 1).map(tuple)


class Memory(RuleBasedStateMachine):
    @initialize(max_sequences=st.integers(1, 3), most_kept=st.integers(0, 3))
    def open(self, max_sequences, most_kept):
        self.max_sequences, self.most_kept = max_sequences, most_kept
        self.memory = SequenceMemory(SPEC, CONTEXT_LEN, max_sequences, most_kept)
        self.under_way: list[tuple[Held, tuple[int, ...], int]] = []  # with the tokens known and how many were seen
        self.kept: list[tuple[tuple[int, ...], int]] = []  # all that was ever kept: tokens, snapshot_len

    @rule(token_ids=PROMPTS, answer_len=st.integers(1, CONTEXT_LEN), keep=st.booleans())
    def take(self, token_ids, answer_len, keep):
        longest = min(CONTEXT_LEN, len(token_ids) + answer_len)
        granted = self.memory.take(token_ids, longest, keep=keep)
        held_pages = sum(len(held.pages) for held, _, _ in self.under_way)
        fits = SPEC.pages_for(longest) + held_pages <= self.memory.num_pages
        assert (granted is not None) == (fits and len(self.under_way) < self.max_sequences)
        if granted is None:
            return
        held, num_cached = granted.held, granted.num_cached
        assert len(held.pages) == SPEC.pages_for(longest)
        assert 0 <= num_cached < len(token_ids)
        ends = {length for ids, snapshot_len in self.kept for length in (len(ids), snapshot_len) if ids[:length]}
        assert num_cached in ends | {0}
        assert num_cached == 0 or any(ids[:num_cached] == token_ids[:num_cached] for ids, _ in self.kept)
        if granted.rewinds:
            assert held.snapshot_slot is not None
            assert held.snapshot_len == num_cached
        self.under_way.append((held, token_ids, num_cached))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def end(self, data):
        held, token_ids, num_cached = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if data.draw(st.booleans(), label="failed"):
            self.memory.give_back(held)
            return
        seen = token_ids[: data.draw(st.integers(num_cached, len(token_ids)), label="seen")]
        if held.snapshot_slot is not None:
            held.snapshot_len = data.draw(st.integers(held.snapshot_len, len(seen)), label="snapshot")
            self.kept.append((seen, held.snapshot_len))
        self.memory.keep(held, seen)

    @invariant()
    def nothing_is_lost_or_shared(self):
        if hasattr(self, "memory"):
            self.memory.check(held for held, _, _ in self.under_way)


TestMemory = Memory.TestCase


def kept(memory, token_ids, snapshot_len, longest=CONTEXT_LEN):
    """A sequence that came and went."""
    granted = memory.take(token_ids, longest, keep=True)
    granted.held.snapshot_len = snapshot_len
    memory.keep(granted.held, token_ids)


@pytest.mark.parametrize(
    ("token_ids", "num_cached", "rewinds"),
    [
        ((1, 2, 3, 4, 5, 6), 5, False),  # goes on from the end
        ((1, 2, 3, 4, 5), 3, True),  # one token must remain
        ((1, 2, 3, 9), 3, True),
        ((1, 2, 3), 0, False),
        ((1, 2, 9, 4, 5, 6), 0, False),
        ((9,), 0, False),
    ],
)
def test_the_longest_beginning_counts(token_ids, num_cached, rewinds):
    memory = SequenceMemory(SPEC, CONTEXT_LEN, 1, 1)
    kept(memory, (1, 2, 3, 4, 5), 3)
    granted = memory.take(token_ids, CONTEXT_LEN, keep=True)
    assert (granted.num_cached, granted.rewinds) == (num_cached, rewinds)


def test_the_best_of_several_is_taken_over_and_the_others_stay():
    memory = SequenceMemory(SPEC, CONTEXT_LEN, 3, 3)
    under_way = [memory.take((1, 2, 3, last), 8, keep=True).held for last in (7, 8, 9)]
    for held, last, snapshot_len in zip(under_way, (7, 8, 9), (1, 3, 2), strict=True):
        held.snapshot_len = snapshot_len
        memory.keep(held, (1, 2, 3, last))
    assert [memory.take((1, 2, 3, 5), 8, keep=True).num_cached for _ in range(3)] == [3, 2, 1]


def test_who_is_not_kept_takes_over_the_state_without_a_copy():
    memory = SequenceMemory(SPEC, CONTEXT_LEN, 1, 1)
    kept(memory, (1, 2, 3, 4), 2)
    granted = memory.take((1, 2, 9), CONTEXT_LEN, keep=False)
    assert (granted.num_cached, granted.rewinds, granted.held.snapshot_slot) == (2, False, None)
    memory.keep(granted.held, (1, 2, 9))
    assert memory.take((1, 2, 9, 9), CONTEXT_LEN, keep=True).num_cached == 0


@pytest.mark.parametrize(("token_ids", "num_cached"), [((1, 1, 1, 5), 0), ((2, 2, 2, 5), 3), ((3, 3, 3, 5), 3)])
def test_the_oldest_makes_room(token_ids, num_cached):
    memory = SequenceMemory(SPEC, CONTEXT_LEN, 2, 2)
    for last in (1, 2, 3):
        kept(memory, (last,) * 3, 1, longest=8)
    assert memory.take(token_ids, 8, keep=True).num_cached == num_cached
