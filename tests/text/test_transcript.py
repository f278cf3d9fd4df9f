"""A saved chat comes back as it was; a file that is none is refused, and never overwritten."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.errors import UsageError
from qwick.text.transcript import LIMIT_BYTES, Transcript, Turn

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SAVED: dict[str, Any] = {
    "qwick_chat": 1,
    "model": "pocket",
    "system": None,
    "think": None,
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
}


@given(
    st.builds(
        Transcript,
        TEXT,
        st.none() | TEXT,
        st.sampled_from([None, True, False]),
        st.lists(st.builds(Turn, TEXT, TEXT, TEXT)),
    )
)
def test_what_was_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, transcript: Transcript) -> None:
    path = tmp_path_factory.mktemp("chat") / "chat.json"
    for _ in range(2):  # also over itself
        transcript.save(path)
        assert Transcript.load(path) == transcript
    assert os.listdir(path.parent) == ["chat.json"]  # noqa: PTH208
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_prompts_repeat_answers_and_no_reasoning() -> None:
    transcript = Transcript("pocket", "be brief", turns=[Turn("q", "a", "because")])
    assert transcript.messages("why?") == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "why?"},
    ]
    assert Transcript("pocket").messages("x") == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "Expecting value"),
        ("\xff", "utf-8"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "nested"),
        ({**SAVED, "qwick_chat": 2}, "qwick_chat is 2"),
        ({"messages": []}, "qwick_chat is None"),
        ({**SAVED, "tools": []}, "'tools'"),
        ({**SAVED, "model": None}, "model is None"),
        ({**SAVED, "system": 1}, "system is 1"),
        ({**SAVED, "think": 1}, "think is 1"),
        ({**SAVED, "messages": {}}, "messages is not a list"),
        ({**SAVED, "messages": ["hi"]}, r"messages\[0\] is not"),
        ({**SAVED, "messages": [{"role": "system", "content": "x"}]}, r"messages\[0\]\.role is 'system'"),
        ({**SAVED, "messages": SAVED["messages"][:1]}, "no answer"),
        ({**SAVED, "messages": SAVED["messages"][:1] * 2}, r"messages\[1\]\.role is 'user'"),
        ({**SAVED, "messages": [{"role": "user", "content": ["x"]}] * 2}, r"messages\[1\]\.role"),
        ({**SAVED, "messages": [{"role": "user"}, SAVED["messages"][1]]}, r"messages\[0\]\.content is None"),
        ({**SAVED, "messages": [{"role": "user", "content": "\ud800"}, SAVED["messages"][1]]}, "surrogate"),
        ({**SAVED, "messages": [SAVED["messages"][0], {**SAVED["messages"][1], "tool_calls": []}]}, "tool_calls"),
    ],
)
def test_what_is_no_saved_chat_is_refused(tmp_path: Path, content: dict[str, Any] | str, complaint: str) -> None:
    path = tmp_path / "chat.json"
    path.write_bytes(content.encode("latin-1") if isinstance(content, str) else json.dumps(content).encode())
    before = path.read_bytes()
    with pytest.raises(UsageError, match=complaint) as caught:
        Transcript.load(path)
    assert "chat.json" in str(caught.value)
    with pytest.raises(UsageError, match="no saved chat; give another name"):
        Transcript("pocket").save(path)
    assert path.read_bytes() == before


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(LIMIT_BYTES + 2)
    with pytest.raises(UsageError, match="larger than"):
        Transcript.load(path)


@pytest.mark.parametrize("name", ["missing/chat.json", ".", "a\0b", "x" * 300])
def test_places_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        Transcript.load(tmp_path / name)
    with pytest.raises(UsageError):
        Transcript("pocket").save(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe"):
        Transcript.load(tmp_path / "pipe")


def test_a_link_is_kept(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    Transcript("pocket").save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert Transcript.load(tmp_path / "target") == Transcript("pocket")
