"""Reasoning and content, told apart wherever the text is cut."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.text.segments import CLOSE, OPEN, Kind, Segment, Segments

THINKING, CLOSED, OTHER = "assistant\n<think>\n", "assistant\n<think>\n\n</think>\n\n", "assistant\n"
PROMPTS = st.sampled_from([THINKING, CLOSED, OTHER, ""])
PARTS = ["\n", "\n\n", OPEN, CLOSE, "<", "</", "</thi", "nk>", ">", "a", " ", "é", "<|im_end|>", "</think", "<think"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)


def expected(prompt: str, text: str) -> tuple[str, str]:
    """The definition, of the whole text: (reasoning, content)."""
    if prompt == CLOSED:
        return "", text.lstrip("\n")
    if prompt != THINKING:
        if not text.lstrip("\n").startswith(OPEN):
            return "", text
        text = text.lstrip("\n")[len(OPEN) :]
    reasoning, _, content = text.partition(CLOSE)
    return reasoning.strip("\n"), content.lstrip("\n")


def split(prompt: str, pieces: Iterable[str]) -> list[Segment]:
    segments = Segments(prompt)
    found = [segment for piece in pieces for segment in segments.push(piece)]
    return found + segments.finish()


def joined(segments: Iterable[Segment]) -> tuple[str, str]:
    segments = list(segments)
    reasoning, content = (
        "".join(text for kind, text in segments if kind is wanted) for wanted in (Kind.REASONING, Kind.CONTENT)
    )
    return reasoning, content


@given(PROMPTS, TEXTS, st.data())
def test_the_split_does_not_depend_on_the_cut(prompt: str, text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    found = split(prompt, (text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)))
    assert joined(found) == expected(prompt, text)
    assert all(text for _, text in found)
    kinds = [kind for kind, _ in found]
    assert kinds == sorted(kinds, key=list(Kind).index)  # reasoning first


@pytest.mark.parametrize("prompt", [THINKING, CLOSED, OTHER])
@pytest.mark.parametrize(
    "text",
    ["\nhm\n\nso\n</think>\n\nHi\n\nyou", "<think>\nhm</think>Hi", "hm </think\n> </think> x", "\n</thi", "\n\n"],
)
def test_every_split_point(prompt: str, text: str) -> None:
    for a in range(len(text) + 1):
        for b in range(a, len(text) + 1):
            assert joined(split(prompt, [text[:a], text[a:b], text[b:]])) == expected(prompt, text)
    assert joined(split(prompt, text)) == expected(prompt, text)


def test_thinking_that_never_ends_is_reasoning() -> None:
    assert joined(split(THINKING, ["\nwait", "\n", "</thin"])) == ("wait\n</thin", "")


def test_tags_in_the_content_are_text() -> None:
    assert joined(split(CLOSED, ["write <think> and </think>"])) == ("", "write <think> and </think>")
    assert joined(split(THINKING, ["a</think>b</think>c"])) == ("a", "b</think>c")


@given(TEXTS)
def test_only_line_breaks_and_a_part_of_the_tag_are_held_back(text: str) -> None:
    segments = Segments(THINKING)
    given_out = joined(segments.push("x" + text))
    if CLOSE not in text:
        held = ("x" + text).removeprefix(given_out[0]).lstrip("\n")
        assert CLOSE.startswith(held)
    else:
        assert given_out == expected(THINKING, "x" + text)
