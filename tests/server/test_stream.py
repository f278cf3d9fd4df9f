"""Frames of a stream, without a server."""

import json
from typing import Any

from qwick.server.chat import _call_frame, _joined
from qwick.server.stream import Chunks
from qwick.text.segments import CallSegment, Kind, Segment


def data(frame: bytes) -> Any:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    return json.loads(frame[6:])


def test_a_piece_of_text_is_framed_as_any_choice() -> None:
    chunks = Chunks("chat.completion", "id", "model", has_usage=True)
    for text in ("plain", 'quo"te\n\\', "世界", "\x00", "\ud800", ""):
        assert data(chunks.text(1, "content", text)) == data(chunks.choice(1, {"content": text}))


def test_a_call_is_framed_as_openai_does() -> None:
    chunks = Chunks("chat.completion", "id", "model", has_usage=False)
    parts = ((Kind.CALL, ""), (Kind.ARGUMENTS, '{"a": '), (Kind.ARGUMENTS, "1}"), (Kind.CALL_END, ""))
    frames = [_call_frame(0, CallSegment(kind, text, 2, "call_x", "add"), chunks) for kind, text in parts]
    assert frames[-1] == b""
    first, *more = [data(frame)["choices"][0]["delta"]["tool_calls"][0] for frame in frames[:-1]]
    assert first == {"index": 2, "id": "call_x", "type": "function", "function": {"name": "add", "arguments": ""}}
    assert "".join(delta["function"]["arguments"] for delta in more) == '{"a": 1}'
    assert all("id" not in delta and delta["index"] == 2 for delta in more)


def test_neighbours_of_one_kind_become_one() -> None:
    call = CallSegment(Kind.CALL, "", 0, "x", "f")
    segments = [Segment(Kind.REASONING, "a"), Segment(Kind.REASONING, "b"), Segment(Kind.CONTENT, "c"), call, call]
    assert list(_joined(segments)) == [Segment(Kind.REASONING, "ab"), Segment(Kind.CONTENT, "c"), call, call]
