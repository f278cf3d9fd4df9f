"""What repeats itself is noticed when it has done so often enough, and not before."""

from hypothesis import given
from hypothesis import strategies as st

from qwick.engine.repetition import LEAST_REPEATS, LEAST_TOKENS, Repetition

LONGEST, REPEATS, TOKENS = 12, 3, 10


def repeats_by(tokens):
    """The same, the slow way: the shortest period of a long enough end."""
    for period in range(1, LONGEST + 1):
        length = max(REPEATS * period, TOKENS)
        end = tokens[-length:]
        if len(end) == length and all(a == b for a, b in zip(end, end[period:], strict=False)):
            return period
    return None


@given(st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=15), st.integers(1, 6)), max_size=8))
def test_it_is_noticed_as_soon_as_by_comparing_everything(parts):
    """Texts of random pieces, each some times over."""
    repetition = Repetition(LONGEST, REPEATS, TOKENS)
    tokens = []
    for piece, times in parts:
        for token in piece * times:
            tokens.append(token)
            assert repetition.push(token) == repeats_by(tokens)


@given(st.lists(st.integers(0, 248_319), min_size=1, max_size=512, unique=True), st.integers(0, 600))
def test_a_loop_of_the_default_size_is_noticed_whatever_came_before(loop, before):
    repetition = Repetition()
    for token in range(300_000, 300_000 + before):
        assert repetition.push(token) is None
    needed = max(LEAST_REPEATS * len(loop), LEAST_TOKENS)
    found = [repetition.push(loop[i % len(loop)]) for i in range(needed)]
    assert found == [None] * (needed - 1) + [len(loop)]


def test_lists_and_tables_are_no_loops():
    """Lines that begin and end alike but differ in one token."""
    repetition = Repetition()
    for row in range(500):
        for token in (1, 2, 3, 1000 + row, 4, 5):
            assert repetition.push(token) is None
