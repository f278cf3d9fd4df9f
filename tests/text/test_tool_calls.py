"""Tool calls, read the same wherever the text is cut, and written back by the official templates."""

import json
from collections.abc import Iterable, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.text.answer import Answer
from qwick.text.chat_template import ChatTemplate
from qwick.text.segments import AnySegment, CallSegment, Kind, Segments
from qwick.text.tool_calls import ToolCalls
from qwick.text.tools import checked_tools
from tests.text.tool_call_cases import LLAMA_CPP, PLAIN, THINKING, Case, call, tool

TEMPLATES = [ChatTemplate(path.read_text()) for path in sorted((Path(__file__).parent / "templates").glob("*.jinja"))]
SAVE = tool(
    "save", path="string", text="string", mode="integer", deep="boolean", size="number", tags="array", all="object"
)
NOW = tool("now")
TOOLS = (SAVE, NOW)


def read(
    raw: Iterable[str], tools: Sequence[dict[str, Any]] = TOOLS, prompt: str = PLAIN, **options: Any
) -> list[AnySegment]:
    """What the pieces say, neighbours of one kind joined."""
    cut = options.pop("cut", False)
    ids = count()
    calls = ToolCalls(checked_tools(tools, **options), Segments(prompt), lambda: f"id{next(ids)}")
    found = [segment for piece in raw for segment in calls.push(piece)]
    return joined(found + calls.finish(cut=cut))


def joined(segments: Iterable[AnySegment]) -> list[AnySegment]:
    def alike(segment: AnySegment) -> tuple[object, ...]:
        return (segment.kind, segment.index) if isinstance(segment, CallSegment) else (segment.kind,)

    groups = [list(group) for _, group in groupby(segments, alike)]
    return [_with_text(group[0], "".join(segment.text for segment in group)) for group in groups]


def _with_text(segment: AnySegment, text: str) -> AnySegment:
    if isinstance(segment, CallSegment):
        return CallSegment(segment.kind, text, segment.index, segment.id, segment.name)
    return segment._replace(text=text)


def text_of(segments: Iterable[AnySegment], kind: Kind) -> str:
    return "".join(segment.text for segment in segments if segment.kind is kind)


def calls_of(segments: Iterable[AnySegment]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Names and arguments; each call begins, has one object of arguments, and ends."""
    calls = [segment for segment in segments if isinstance(segment, CallSegment)]
    assert [segment.kind for segment in calls] == [Kind.CALL, Kind.ARGUMENTS, Kind.CALL_END] * (len(calls) // 3)
    return tuple((segment.name, json.loads(segment.text)) for segment in calls if segment.kind is Kind.ARGUMENTS)


# Against llama.cpp's cases.


def test_the_cases_of_llama_cpp_are_all_here() -> None:
    assert len(LLAMA_CPP) == 25
    assert sum(bool(case.differs) for case in LLAMA_CPP) == 8


@pytest.mark.parametrize("case", LLAMA_CPP, ids=range(len(LLAMA_CPP)))
def test_a_case_of_llama_cpp_at_every_split_point(case: Case) -> None:
    whole = read([case.raw], case.tools, case.prompt)
    assert (text_of(whole, Kind.REASONING), text_of(whole, Kind.CONTENT)) == (case.reasoning, case.content)
    assert calls_of(whole) == case.calls
    for at in range(1, len(case.raw)):
        assert read([case.raw[:at], case.raw[at:]], case.tools, case.prompt) == whole
    assert read(case.raw, case.tools, case.prompt) == whole


# Ours.

SAVED = ("save", {"path": "a"})
CALL = call("save", path="a")


def said(**values: str) -> tuple[str, tuple[tuple[str, dict[str, Any]], ...]]:
    """No content, one call."""
    return "", (("save", values),)


ACCEPTED = [
    # closers missing at the end
    (CALL.removesuffix("\n</tool_call>"), "", (SAVED,)),
    (CALL.removesuffix("\n</function>\n</tool_call>"), "", (SAVED,)),
    ("<tool_call>\n<function=save>\n<parameter=path>\na", "", (SAVED,)),
    ("<tool_call>\n<function=save>\n<parameter=path>\na\n", "", (SAVED,)),
    ("<tool_call>\n<function=save>\n<parameter=path>\na\n</function>\n</tool_call>", "", (SAVED,)),
    ("<tool_call>\n<function=save>\n<parameter=path>\na\n</tool_call>\n", "", (SAVED,)),
    ("<tool_call>\n<function=now>", "", (("now", {}),)),
    ("<tool_call>\n<function=now>\n", "", (("now", {}),)),
    ("<tool_call>\n<function=now>\n</tool_call>", "", (("now", {}),)),
    (f"{CALL[:-13]}\n{CALL}", "", (SAVED, SAVED)),
    # on one line, and with other blanks
    ("<tool_call><function=save><parameter=path>a</parameter></function></tool_call>", "", (SAVED,)),
    (" <tool_call> \n <function=save> <parameter=path>\na</parameter>\n\n</function>  </tool_call> ", "", (SAVED,)),
    # JSON in the tag, and in the function
    ('<tool_call>\n{"name": "save", "arguments": {"path": "a"}}\n</tool_call>', "", (SAVED,)),
    ('<tool_call>{"arguments": {"path": "a"}, "name": "save"}', "", (SAVED,)),
    ('<tool_call>\n{"name": "save", "parameters": "{\\"path\\": \\"a\\"}"}\n</tool_call>', "", (SAVED,)),
    ('<tool_call>\n{"name": "now"}\n{"name": "now"}\n</tool_call>', "", (("now", {}), ("now", {}))),
    ('<tool_call>\n<function=save>\n{"path": "a"}\n</function>\n</tool_call>', "", (SAVED,)),
    (
        '<tool_call>\n{"name": "save", "arguments": {"path": "}</tool_call>\\\\\\""}}\n</tool_call>',
        "",
        (("save", {"path": '}</tool_call>\\"'}),),
    ),
    # several
    (f"{CALL}\n{CALL}", "", (SAVED, SAVED)),
    (f"{CALL}{CALL}", "", (SAVED, SAVED)),
    ("<tool_call><function=now></function><function=now></function></tool_call>", "", (("now", {}),) * 2),
    # text around
    (f"I save.\n\n{CALL}\n", "I save.", (SAVED,)),
    (f"{CALL}\n\nDone.\n", "Done.\n", (SAVED,)),
    (f"One.\n{CALL}\nTwo.", "One.\nTwo.", (SAVED,)),
    # values that hold tags
    (
        call("save", text="<b>\n</parameter>\nx\n</tool_call>\n</function>"),
        *said(text="<b>\n</parameter>\nx\n</tool_call>\n</function>"),
    ),
    (
        call("save", text="<parameter=path>\n<tool_call>", path="</think>"),
        *said(text="<parameter=path>\n<tool_call>", path="</think>"),
    ),
    (call("save", text="<think>\na\n</think>\n"), *said(text="<think>\na\n</think>\n")),
    # newlines and blanks in values
    (call("save", text="\n\n a\r\n\t\n"), *said(text="\n\n a\r\n\t\n")),
    (call("save", text=""), *said(text="")),
    (call("save", text='é👩‍👩‍👧\u2028"\\\x00'), *said(text='é👩‍👩‍👧\u2028"\\\x00')),
    # the first of two equal keys; names that are no tool's
    (
        "<tool_call>\n<function=save>\n<parameter=path>\na\n</parameter>\n<parameter=path>\nb\n</parameter>\n</function>\n</tool_call>",
        "",
        (SAVED,),
    ),
    (call("other", mode="1"), "", (("other", {"mode": "1"}),)),
]
TEXTS = [
    "<tool_call>",
    "<tool_call>\n",
    "Write <tool_call> and </tool_call>.",
    "<tool_call>\nadd(1, 2)\n</tool_call>",
    "<tool_call>\n{1: 2}\n</tool_call>",
    '<tool_call>\n{"path": "a"}\n</tool_call>',
    '<tool_call>\n{"name": "save", "arguments": [1]}\n</tool_call>',
    '<tool_call>\n{"name": "save", "arguments": {"path"',
    "<tool_call>\n<function=>\n</function>",
    "<tool_call>\n<function=a b>\n</function>",
    "<function=now>\n</function>",
    "a\n\n  \n<tool",
]


@pytest.mark.parametrize(("raw", "content", "calls"), ACCEPTED)
def test_what_is_accepted_at_every_two_split_points(
    raw: str, content: str, calls: tuple[tuple[str, dict[str, Any]], ...]
) -> None:
    whole = read([raw])
    assert (text_of(whole, Kind.CONTENT), calls_of(whole)) == (content, calls)
    for first in range(len(raw) + 1):
        for second in range(first, min(first + 12, len(raw)) + 1):
            assert read([raw[:first], raw[first:second], raw[second:]]) == whole


@pytest.mark.parametrize("raw", TEXTS)
@pytest.mark.parametrize("prompt", [PLAIN, THINKING])
def test_a_tag_that_no_call_follows_is_text(raw: str, prompt: str) -> None:
    kind = Kind.CONTENT if prompt == PLAIN else Kind.REASONING
    for at in range(len(raw) + 1):
        found = read([raw[:at], raw[at:]], prompt=prompt)
        assert [segment.kind for segment in found] == [kind]
        assert text_of(found, kind).rstrip("\n") == raw.rstrip("\n")


TAGS = "<tool_call> </tool_call> <function= <function=save> </function> <parameter= <parameter=text> <parameter=tags>"
PARTS = [*TAGS.split(), *'\n<> {}"\\aé', "\n\n", " " * 70, "</parameter>", "\n</parameter>\n", "<think>", "</think>"]
PARTS += ["[1]", '{"name": "now"}', '"arguments": ', CALL]


@given(
    st.sampled_from([PLAIN, THINKING]),
    st.lists(st.sampled_from(PARTS), max_size=14).map("".join),
    st.booleans(),
    st.data(),
)
def test_what_is_read_does_not_depend_on_the_cuts(prompt: str, raw: str, cut: bool, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)))))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    whole = read([raw], prompt=prompt, cut=cut)
    assert read(pieces, prompt=prompt, cut=cut) == whole
    assert read(raw, prompt=prompt, cut=cut) == whole
    if not cut:
        calls_of(whole)  # each a whole object
    assert all(segment.text for segment in whole if not isinstance(segment, CallSegment))


def test_bytes_and_tokens_may_end_anywhere() -> None:
    raw = f"Ä 日\n</think>\n\nÖ\n\n{call('save', text='é👩‍👩‍👧', mode='5')}\n{CALL}".encode()
    tools = checked_tools(TOOLS)
    for at in range(len(raw) + 1):
        answer = Answer([raw[:at], raw[at:]].__getitem__, (), ToolCalls(tools, Segments(THINKING)))
        segments = joined([*answer.push(0), *answer.push(1), *answer.finish()])
        assert calls_of(segments) == (("save", {"text": "é👩‍👩‍👧", "mode": 5}), SAVED)
        assert (answer.reasoning, answer.text) == ("Ä 日", "Ö")
        assert [(made.name, json.loads(made.arguments)) for made in answer.tool_calls] == list(calls_of(segments))
        assert len({made.id for made in answer.tool_calls}) == 2


# In thoughts.


@pytest.mark.parametrize(
    ("raw", "reasoning", "content", "num_calls"),
    [
        (f"I save.\n{CALL}", "I save.", "", 1),
        (f"I save.\n{CALL}\n</think>\n\n", "I save.", "", 1),
        (f"I save.\n{CALL}\n</think>\n\nDone", "I save.", "Done", 1),
        (f"I save.\n{CALL}\n{CALL}", "I save.", "", 2),
        (f"\n\n{CALL}\nDone </think> so", "", "Done </think> so", 1),
        (f"A <tool_call> is next.\n</think>\n\n{CALL}", "A <tool_call> is next.", "", 1),
        (call("save", text="a\n</think>\nb"), "", "", 1),
    ],
)
def test_a_call_ends_the_thought(raw: str, reasoning: str, content: str, num_calls: int) -> None:
    for at in range(len(raw) + 1):
        found = read([raw[:at], raw[at:]], prompt=THINKING)
        assert (text_of(found, Kind.REASONING), text_of(found, Kind.CONTENT)) == (reasoning, content)
        assert len(calls_of(found)) == num_calls


# As it grows.


def test_texts_are_told_as_they_grow_and_a_name_at_once() -> None:
    calls = ToolCalls(checked_tools(TOOLS), Segments(PLAIN), lambda: "id")
    assert [s.kind for s in calls.push("<tool_call>\n<function=save>")] == [Kind.CALL, Kind.ARGUMENTS]
    assert text_of(calls.push("\n<parameter=text>\none"), Kind.ARGUMENTS) == '"text": "one'
    assert text_of(calls.push(' "two"'), Kind.ARGUMENTS) == ' \\"two\\"'
    assert text_of(calls.push("\n</param"), Kind.ARGUMENTS) == ""
    assert text_of(calls.push("eter>\n<parameter=mode>\n1"), Kind.ARGUMENTS) == '", "mode": '
    assert text_of(calls.push("2\n</parameter>\n</function>"), Kind.ARGUMENTS) == "12}"


def test_what_was_cut_off_is_no_valid_object() -> None:
    at = CALL.index("</tool_call>")
    for length in range(CALL.index("save>") + 5, len(CALL) + 1):
        found = read([CALL[:length]], cut=True)
        ended = any(segment.kind is Kind.CALL_END for segment in found)
        assert ended == (length >= at - 1)
        if not ended:
            with pytest.raises(json.JSONDecodeError):
                json.loads(text_of(found, Kind.ARGUMENTS))


@pytest.mark.parametrize("raw", [CALL, '<tool_call>\n{"name": "save", "arguments": {"text": "a"}}', f"{CALL}\n{CALL}"])
def test_the_beginning_of_a_call_that_was_cut_off_is_no_text(raw: str) -> None:
    """Once its first tag is there; what ended by itself is shown as it is."""
    for length in range(len("<tool_call>"), len(raw)):
        content = text_of(read([f"Hi.\n{raw[:length]}"], cut=True), Kind.CONTENT)
        assert content.startswith("Hi.")
        assert not any(part in content for part in ("<tool_call>", "<func", "{", "save", "</tool"))
    assert "<tool_call>" in text_of(read(["Hi.\n<tool_call>\n<func"]), Kind.CONTENT)


def test_a_stop_string_counts_around_calls_and_not_in_them() -> None:
    tools = checked_tools(TOOLS)
    raw = f"on STO\n{call('save', text='STOP')}\nPa STOP b"
    answer = Answer(lambda i: raw[i].encode(), ("STOP",), ToolCalls(tools, Segments(PLAIN)))
    for i in range(len(raw)):
        answer.push(i)
        if answer.stopped:
            break
    answer.finish()
    assert (answer.text, answer.stopped) == ("on STO\nPa ", True)
    assert json.loads(answer.tool_calls[0].arguments) == {"text": "STOP"}


def test_one_call_only_ends_the_answer() -> None:
    raw = f"{CALL}\n{CALL}\nmore"
    for at in range(len(raw) + 1):
        assert calls_of(read([raw[:at], raw[at:]], parallel=False)) == (SAVED,)
    answer = Answer(lambda i: raw[i].encode(), (), ToolCalls(checked_tools(TOOLS, parallel=False), Segments(PLAIN)))
    taken = next(i for i in range(len(raw)) if answer.push(i) is not None and answer.stopped)
    assert raw[: taken + 1].endswith("</function>")


@pytest.mark.parametrize("before", ["", "<tool_call><function=save>", "<tool_call><function=save><parameter=text>"])
@pytest.mark.parametrize(
    "flood", ["\n", "<tool_call>", "</parameter>", "</parameter>\n", "</function>\n", "<parameter=", "<"]
)
def test_a_flood_is_not_kept(before: str, flood: str) -> None:
    """What is held back is read again with each piece, so there must never be much of it."""
    calls = ToolCalls(checked_tools(TOOLS), Segments(PLAIN))
    for piece in [before, *[flood] * 500]:
        calls.push(piece)
        assert len(calls._held) < 400


# Back through the templates.

VALUES = {
    "path": st.text('ab \n<>"\\é{', max_size=20),
    "text": st.sampled_from(
        ["", "\n", " x ", "<parameter=path>\nx", "</tool_call>", "a\n</parameter>\nb", "{}", "5", "None"]
    ),
    "mode": st.integers(),
    "deep": st.booleans(),
    "size": st.floats(allow_nan=False, allow_infinity=False),
    "tags": st.lists(st.one_of(st.integers(), st.text('aé"\n<', max_size=5), st.none()), max_size=3),
    "all": st.dictionaries(st.text("ab<", max_size=5), st.booleans(), max_size=3),
}
MADE = st.one_of(
    st.tuples(st.just("save"), st.fixed_dictionaries({}, optional=VALUES)), st.tuples(st.just("now"), st.just({}))
)


def rendered(template: ChatTemplate, answer: dict[str, Any]) -> str:
    """An answer as the template writes it, as the last message of a chat."""
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", **answer}]
    pieces = template.render(
        messages, think=False, control_tokens=["<|im_start|>", "<|im_end|>"], tools=TOOLS, add_generation_prompt=False
    )
    text = "".join(piece.text for piece in pieces)
    return text[text.rindex("<|im_start|>assistant\n<think>\n") + len(THINKING) :].removesuffix("<|im_end|>\n")


def parsed(raw: str) -> dict[str, Any]:
    found = read([raw], prompt=THINKING)
    calls = [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls_of(found)]
    return {
        "content": text_of(found, Kind.CONTENT),
        "reasoning_content": text_of(found, Kind.REASONING),
        "tool_calls": calls,
    }


@pytest.mark.parametrize("template", TEMPLATES, ids=["small", "large"])
@given(
    st.sampled_from(["", "hm", "a\n\nb"]), st.sampled_from(["", "I save.", "a\n\nb <b>"]), st.lists(MADE, max_size=3)
)
def test_a_rendered_answer_is_read_and_rendered_the_same(
    template: ChatTemplate, thought: str, content: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    made = [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    raw = rendered(template, {"content": content, "reasoning_content": thought, "tool_calls": made})
    found = parsed(raw)
    assert [item["function"]["arguments"] for item in found["tool_calls"]] == [arguments for _, arguments in calls]
    assert (found["content"], found["reasoning_content"]) == (content, thought)
    assert rendered(template, found) == raw


@pytest.mark.parametrize("template", TEMPLATES, ids=["small", "large"])
@pytest.mark.parametrize(
    ("value", "written"),
    [
        # what is normalised: words of JSON, blanks in JSON and around numbers, digits that say nothing
        ({"deep": "true"}, {"deep": "True"}),
        ({"tags": "[1,2]"}, {"tags": "[1, 2]"}),
        ({"mode": " 5 "}, {"mode": "5"}),
        ({"mode": "5.0"}, {"mode": "5"}),
        ({"size": "1.50"}, {"size": "1.5"}),
        # and what is not
        ({"path": "true"}, {"path": "true"}),
        ({"text": " 5\n"}, {"text": " 5\n"}),
        ({"mode": "five"}, {"mode": "five"}),
    ],
)
def test_what_the_templates_normalise(template: ChatTemplate, value: dict[str, str], written: dict[str, str]) -> None:
    raw = f"hm\n</think>\n\n{call('save', **value)}"
    assert rendered(template, parsed(raw)) == f"hm\n</think>\n\n{call('save', **written)}"
    loose = f"\nhm</think>I save.\n{call('save', **value)}"
    assert rendered(template, parsed(loose)) == f"hm\n</think>\n\nI save.\n\n{call('save', **written)}"
