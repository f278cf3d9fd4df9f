"""Stop strings are found across borders, and nothing after one gets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.errors import UsageError
from qwick.text.stop import StopStrings

TEXTS = st.text(alphabet="ab<")
STOPS = st.lists(st.text(alphabet="ab<", min_size=1, max_size=4), max_size=3)


def expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: the stop that ends first, the longest of those; looked for end by end."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end - len(stop)], stop
    return text, None


@given(TEXTS, STOPS, st.data())
def test_the_answer_does_not_depend_on_the_cut(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    checker = StopStrings(stops)
    pieces = [checker.push(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    pieces.append(checker.finish())
    assert ("".join(pieces), checker.found) == expected(text, stops)


@given(TEXTS, STOPS)
def test_only_what_may_become_a_stop_is_held_back(text: str, stops: list[str]) -> None:
    checker = StopStrings(stops)
    given_out = checker.push(text)
    if checker.found is None:
        held = text[len(given_out) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        StopStrings(["a", ""])
