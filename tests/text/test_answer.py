"""Tokens to shown text: characters, segments and stops together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.text.answer import Answer
from qwick.text.segments import Kind, Segments

THINKING = "<think>\n"


def answer_of(raw: bytes, cuts: list[int], stops: tuple[str, ...] = (), prompt: str | None = THINKING) -> Answer:
    """The answer after all of `raw`, or up to the token that completed a stop string."""
    parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    answer = Answer(parts.__getitem__, stops, None if prompt is None else Segments(prompt))
    shown = ""
    for i in range(len(parts)):
        shown += "".join(text for _, text in answer.push(i))
        if answer.stopped:
            break
    shown += "".join(text for _, text in answer.finish())
    assert shown == answer.reasoning + answer.text
    return answer


def test_an_answer_ends_at_a_stop_that_spans_tokens() -> None:
    answer = Answer(lambda i: [b"one ", b"E", b"ND", b" two"][i], ["END"])
    pieces = [answer.push(i) for i in range(4)] + [answer.finish()]
    assert pieces == [[(Kind.CONTENT, "one ")], [], [], [], []]
    assert answer.text == "one "
    assert answer.stopped


RAW = "\n1. é👩‍👩‍👧\nStop: no\n</think>\n\nÄ日: 👍🏽 é STOP more".encode()


@pytest.mark.parametrize("stops", [("Stop",), ("1",), ("👩",), ("</think>",), ("\n</think>\n\n",), ("more!",)])
def test_stops_do_not_count_in_reasoning_wherever_tokens_end(stops: tuple[str, ...]) -> None:
    for cut in range(len(RAW) + 1):
        answer = answer_of(RAW, [cut], stops)
        assert not answer.stopped
        assert (answer.reasoning, answer.text) == ("1. é👩‍👩‍👧\nStop: no", "Ä日: 👍🏽 é STOP more")


@pytest.mark.parametrize(
    ("stops", "text"),
    [
        (("STOP",), "Ä日: 👍🏽 é "),
        (("日: ", "日"), "Ä"),  # the one that ends first
        (("é STOP", "STOP"), "Ä日: 👍🏽 "),  # they end together: the longest
        (("👍",), "Ä日: "),  # the skin tone after it goes too
        (("\U0001f3fd",), "Ä日: 👍"),
        (("Ä",), ""),  # right behind the line breaks after the tag
        (("STOP more", "é STOP mo"), "Ä日: 👍🏽 "),
    ],
)
def test_stops_count_in_content_wherever_tokens_end(stops: tuple[str, ...], text: str) -> None:
    for first in range(len(RAW) + 1):
        for second in range(first, min(first + 6, len(RAW)) + 1):
            answer = answer_of(RAW, [first, second], stops)
            assert answer.stopped
            assert (answer.reasoning, answer.text) == ("1. é👩‍👩‍👧\nStop: no", text)


def test_a_raw_continuation_has_no_segments() -> None:
    raw = b"<think>x</think>\n\nSTOP"
    for cut in range(len(raw) + 1):
        answer = answer_of(raw, [cut], ("STOP",), None)
        assert (answer.reasoning, answer.text, answer.stopped) == ("", "<think>x</think>\n\n", True)


@given(st.binary(max_size=60), st.data())
def test_any_bytes_give_the_same_answer_however_cut(raw: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    cut, whole = (
        answer_of(b"a</think>" + raw, at, ("\ufffd\x00", "ab", "b\ufffd")) for at in ([c + 9 for c in cuts], [])
    )
    assert (cut.reasoning, cut.text, cut.stopped) == (whole.reasoning, whole.text, whole.stopped)
