"""A whole batch: answers in order, equal to those of each question alone, and its command killed and started again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from qwick.async_llm import AsyncLLM
from qwick.batch.journal import Journal
from qwick.batch.run import Batch, Defaults
from qwick.batch.source import Source
from qwick.llm import LLM
from qwick.opening import EngineOptions
from qwick.prompting import SamplingOptions
from tests.small_model import write_small_model

QWICK = [sys.executable, "-m", "qwick"]
GREEDY = SamplingOptions(temperature=0, max_tokens=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


def write(path: Path, lines: list[object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(folder: Path, tmp_path: Path, lines: list[object], *, max_concurrent: int = 5) -> tuple[list[Any], Batch]:
    """The output's lines; the batch."""
    source = Source(write(tmp_path / "in", lines))

    async def batch() -> Batch:
        async with AsyncLLM(folder, EngineOptions(threads=1, max_sequences=max_concurrent)) as llm:
            running = Batch(llm, "small", Defaults(GREEDY), max_concurrent)
            with Journal(tmp_path / "out", source, {}) as journal:
                await running.run(source, journal)
        return running

    done = asyncio.run(batch())
    return read(tmp_path / "out"), done


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_answers_come_in_order_and_are_those_of_each_question_alone(folder: Path, tmp_path: Path) -> None:
    asked: list[Any] = [
        {"prompt": f"number {i}", "max_tokens": 1 + i * 7 % 11} if i % 2 else {"messages": chat(f"number {i}")}
        for i in range(40)
    ]
    found, batch = run(folder, tmp_path, asked)
    with LLM(folder, threads=1) as llm:
        for line, answer in zip(asked, found, strict=True):
            options: Any = {"temperature": 0, "max_tokens": line.get("max_tokens", 9)}
            alone = (
                llm.generate(line["prompt"], **options) if "prompt" in line else llm.chat(line["messages"], **options)
            )
            assert (answer["text"], answer["finish_reason"]) == (alone.text, alone.finish_reason)
            assert answer["usage"]["prompt_tokens"] == alone.stats.prompt_tokens
            assert answer["usage"]["completion_tokens"] == alone.stats.generated_tokens
    assert (batch.counts.answered, batch.counts.failed) == (40, 0)


def test_both_forms_answer_in_their_own(folder: Path, tmp_path: Path) -> None:
    body = {"model": "any", "messages": chat("hello"), "max_completion_tokens": 4}
    lines: list[object] = [
        {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body},
        {"custom_id": "two", "method": "POST", "url": "/v1/completions", "body": {"prompt": "hello", "max_tokens": 4}},
        {"id": "three", "messages": chat("hello"), "max_tokens": 4},
    ]
    (one, two, three), _ = run(folder, tmp_path, lines)
    assert (one["custom_id"], two["custom_id"], three["id"]) == ("one", "two", "three")
    assert one["error"] is two["error"] is None
    first = one["response"]["body"]
    assert first["object"] == "chat.completion"
    assert first["model"] == "small"
    assert first["choices"][0]["message"] == {"role": "assistant", "content": three["text"]}
    assert first["usage"] == three["usage"]
    assert two["response"]["status_code"] == 200
    assert isinstance(two["response"]["body"]["choices"][0]["text"], str)


def test_choices_are_scored(folder: Path, tmp_path: Path) -> None:
    lines: list[object] = [
        {"prompt": "hello", "choices": ["yes", "no", "maybe"], "id": 1},
        {"messages": chat("hello"), "choices": ["no", "yes"]},
        {"prompt": [], "choices": ["no", "yes"]},
        {"prompt": "hello"},
    ]
    (first, second, third, _), batch = run(folder, tmp_path, lines)
    with LLM(folder, threads=1) as llm:
        wanted = llm.score(["yes", "no", "maybe"], "hello")
        chatted = llm.score(["no", "yes"], messages=chat("hello"))
    for answer, scores in ((first, wanted), (second, chatted)):
        assert answer["best"] == scores.best.text
        assert [choice["logprob"] for choice in answer["choices"]] == [choice.logprob for choice in scores.choices]
    assert first["id"] == 1
    assert first["choices"][0]["logprob"] == pytest.approx(sum(first["choices"][0]["token_logprobs"]))
    assert first["usage"]["prompt_tokens"] == wanted.prompt_tokens
    assert "nothing to score" in third["error"]["message"]
    assert batch.counts.failed == 1


def test_what_is_wrong_with_a_line_is_said_in_its_place(folder: Path, tmp_path: Path) -> None:
    body = {"messages": chat("x"), "temperature": -1}
    lines: list[object] = [
        {"prompt": "hello"},
        {"prompt": "hello", "typo": 1, "id": 7},
        {"prompt": "a" * 9000},
        {"prompt": "hello", "temperature": -1},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body},
        "not an object",
        {"prompt": "hello"},
    ]
    found, batch = run(folder, tmp_path, lines)
    assert found[0] == found[-1]
    said = [answer["error"]["message"] for answer in found[1:5]]
    for part, message in zip(["'typo'", "context is", "temperature is -1", "nobody"], said, strict=True):
        assert part in message
    assert found[1]["id"] == 7
    assert found[5]["response"]["status_code"] == 400
    assert "temperature: " in found[5]["response"]["body"]["error"]["message"]
    assert "JSON object" in found[6]["error"]["message"]
    assert (batch.counts.answered, batch.counts.failed) == (2, 6)


def test_an_engine_that_is_killed_costs_nothing(folder: Path, tmp_path: Path) -> None:
    lines: list[object] = [{"prompt": f"number {i}", "max_tokens": 30} for i in range(60)]
    wanted, _ = run(folder, tmp_path, lines)
    (tmp_path / "out").unlink()
    source = Source(tmp_path / "in")

    async def batch() -> None:
        async with AsyncLLM(folder, EngineOptions(threads=1, max_sequences=5)) as llm:

            def told(_: int) -> None:
                if llm.process.pid and running.counts.answered == 20 and llm.process.num_starts == 1:
                    os.kill(llm.process.pid, signal.SIGKILL)

            running = Batch(llm, "small", Defaults(GREEDY), 5, told)
            with Journal(tmp_path / "out", source, {}) as journal:
                await running.run(source, journal)
            assert llm.process.num_starts == 2

    asyncio.run(batch())
    assert read(tmp_path / "out") == wanted


def lines_done(tmp_path: Path) -> int:
    """As an unfinished batch says."""
    path = tmp_path / "out.progress"
    return json.loads(path.read_text())["lines"] if path.exists() else 0


def command(tmp_path: Path, folder: Path, *more: str) -> list[str]:
    return [*QWICK, "batch", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(folder), *more]


def test_the_command_killed_again_and_again_loses_and_repeats_nothing(folder: Path, tmp_path: Path) -> None:
    lines: list[object] = [{"prompt": f"number {i}", "max_tokens": 40, "id": i} for i in range(700)]
    write(tmp_path / "in", lines)
    options = ("--temperature", "0", "--threads", "1", "--max-concurrent", "4")
    for _ in range(2):
        before = lines_done(tmp_path)
        process = subprocess.Popen(command(tmp_path, folder, *options), stderr=subprocess.DEVNULL)
        while process.poll() is None and lines_done(tmp_path) == before:
            time.sleep(0.01)
        process.kill()
        process.wait()
    done = subprocess.run(command(tmp_path, folder, *options), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lines are done; going on" in done.stderr
    found = read(tmp_path / "out")
    assert [answer["id"] for answer in found] == list(range(700))
    with LLM(folder, threads=1) as llm:
        for i in range(0, 700, 50):
            assert found[i]["text"] == llm.generate(f"number {i}", temperature=0, max_tokens=40).text


def test_ctrl_c_keeps_what_is_done(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "in", [{"prompt": f"number {i}", "max_tokens": 40} for i in range(2000)])
    # Tests that run in the background may have been told to ignore SIGINT, and so would their children.
    hears = ["env", "--default-signal=INT", *command(tmp_path, folder, "--seed", "1")]
    process = subprocess.Popen(hears, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not lines_done(tmp_path):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert lines_done(tmp_path) == len(read(tmp_path / "out")) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--max-concurrent", "0"), "--max-concurrent is 0"), (("--temperature", "-1"), "temperature is -1")],
)
def test_wrong_flags_are_said_at_once(folder: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    write(tmp_path / "in", [{"prompt": "x"}])
    done = subprocess.run(command(tmp_path, folder, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_input_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "in", [{"prompt": "x"}])
    done = subprocess.run(
        [*QWICK, "batch", str(path), str(path), "--model", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "written over" in done.stderr
    assert read(path) == [{"prompt": "x"}]


def test_a_form_and_warnings_as_of_the_server(folder: Path, tmp_path: Path) -> None:
    body = {"messages": chat("hello"), "regex": "(yes|no)", "user": "me", "max_tokens": 20}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (found,), _ = run(folder, tmp_path, [line])
    answer = found["response"]["body"]
    assert answer["choices"][0]["message"]["content"] in {"yes", "no"}
    assert answer["warnings"] == ["user is not used here"]
