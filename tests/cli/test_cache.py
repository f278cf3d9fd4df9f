"""`qwick cache explain`: what would be in memory, and where a prompt parts from what was read."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qwick.cli.main import commands
from qwick.text.transcript import Transcript, Turn

RULES = "You are helpful. It is {clock}. " + "Answer in short sentences and never invent facts. " * 4


def explain(*arguments: object) -> list[dict]:
    done = CliRunner().invoke(commands, ["cache", "explain", *map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.output.splitlines()]


def lines(tmp_path: Path, *clocks: str) -> Path:
    """The same question ever again, at other times."""
    file = tmp_path / "requests.jsonl"
    requests = (
        {"messages": [{"role": "system", "content": RULES.format(clock=clock)}, {"role": "user", "content": "Hello"}]}
        for clock in clocks
    )
    file.write_text("".join(json.dumps(request) + "\n" for request in requests))
    return file


def chat(tmp_path: Path) -> Path:
    file = tmp_path / "chat.json"
    turns = [Turn(f"Question {i}, " * 3, f"Answer {i}. " * 30) for i in range(4)]
    Transcript("pocket", "Be kind.", None, turns).save(file)
    return file


def test_a_clock_in_the_system_prompt_is_found(tmp_path: Path) -> None:
    first, second, third = explain(lines(tmp_path, "10:31", "10:32", "10:32"))
    assert first["reason"] == "new"
    assert (second["reason"], second["cached_tokens"]) == ("diverged", 0)
    assert re.search(r"after '[^']*\. It is 10:3' it says '2\. ", second["why"])
    assert "before it was '1. " in second["why"]
    assert third["cached_tokens"] > 0.9 * third["prompt_tokens"]


@pytest.mark.parametrize("idle", [True, False])
def test_a_chat_reads_its_answers_at_leisure_or_with_the_next_question(tmp_path: Path, idle: bool) -> None:
    first, *turns = explain(chat(tmp_path), "--idle" if idle else "--no-idle")
    assert first["cached_tokens"] == 0
    for before, turn in zip([first, *turns], turns, strict=False):
        assert before["prompt_tokens"] - 12 <= turn["cached_tokens"] < turn["prompt_tokens"]
        own = turn["prompt_tokens"] - before["prompt_tokens"]  # the answer before and the question
        left = turn["prompt_tokens"] - turn["cached_tokens"]
        assert left < 0.7 * own if idle else own <= left <= own + 12


def test_a_memory_that_is_too_small_is_told(tmp_path: Path) -> None:
    _, second = explain(lines(tmp_path, "1", "1"), "--cache-memory", "1KiB")
    assert second["cached_tokens"] <= second["prompt_tokens"]


def test_a_table_for_people(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["cache", "explain", str(lines(tmp_path, "10:31", "10:32"))])
    assert done.exit_code == 0
    assert [row.split("\t")[0] for row in done.output.splitlines()] == ["1", "2"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("nonsense\n", "line 1"),
        ('{"prompt": "x"}\n', "no messages"),
        ('{"qwick_chat": 7}', "no saved chat"),
    ],
)
def test_a_file_that_is_neither_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content)
    done = CliRunner().invoke(commands, ["cache", "explain", str(file)])
    assert done.exit_code == 2
    assert words in done.output
