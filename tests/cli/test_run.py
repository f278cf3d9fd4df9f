"""`qwick run` as people and scripts meet it: real processes, pipes, a terminal, signals."""

import ctypes
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qwick.cli.stats import JSON_STATS
from qwick.llm import LLM
from qwick.text.tokenizer import Tokenizer
from tests.cli.terminal_session import Terminal
from tests.small_model import LONGEST, write_small_model

QWICK = [sys.executable, "-m", "qwick"]
TEMPLATES = Path(__file__).parents[1] / "text" / "templates"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_model(tmp_path_factory.mktemp("model")))


def qwick(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run to the end; `stdin` None is /dev/null."""
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run([*QWICK, *arguments], capture_output=True, timeout=120, check=False, **source)  # type: ignore[call-overload]


def test_an_answer_goes_to_standard_output_and_nothing_else(folder: str) -> None:
    done = qwick("run", folder, "hello", "--max-tokens", "5", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert done.stdout.endswith(b"\n")
    assert len(done.stdout) > 1


def test_the_prompt_may_come_from_standard_input(folder: str) -> None:
    options = ("--max-tokens", "8", "--seed", "3", "--threads", "1")
    piped = qwick("run", folder, *options, stdin="grüß dich\n".encode())
    given = qwick("run", folder, "grüß dich", *options)
    assert piped.returncode == given.returncode == 0
    assert piped.stdout == given.stdout


def test_every_option_is_taken(folder: str) -> None:
    options = (
        "--max-tokens 3 --temperature 0.7 --top-k 5 --top-p 0.9 --min-p 0.01 --seed 1 --threads 1 --threads-batch 1 "
        "--presence-penalty 1 --frequency-penalty 0.5 --repetition-penalty 1.1 --logit-bias 5=1 --logit-bias 6=-inf "
        "--stop xyz --stop zyx --format q8_0 --kv-format f32 --no-think --ctx-size 256 --stats"
    )
    done = qwick("run", folder, "hello", *options.split())
    assert done.returncode == 0, done.stderr


def test_stop_ends_the_answer_before_its_text(folder: str) -> None:
    options = ("--raw", "--max-tokens", "30", "--temperature", "0")
    whole = qwick("run", folder, "hello", *options).stdout.decode().rstrip("\n")
    stop = whole[len(whole) // 2 :][:3]
    done = qwick("run", folder, "hello", *options, "--stop", stop)
    assert done.stdout.decode().rstrip("\n") == whole[: whole.index(stop)].rstrip("\n")


def test_a_forbidden_token_does_not_come(folder: str) -> None:
    options = ("--raw", "--max-tokens", "1", "--temperature", "0")
    with LLM(folder, threads=1) as llm:
        ids = llm.generate("hello", temperature=0, max_tokens=1).token_ids
    bias = ("--logit-bias", f"{ids[0]}=-inf")
    assert qwick("run", folder, "hello", *options).stdout != qwick("run", folder, "hello", *options, *bias).stdout


def without_the_right_to_lock() -> None:
    """At most 64 KiB, for root too."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))
    ctypes.CDLL(None).prctl(24, 14, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_IPC_LOCK: the process started next has it not


def test_memory_that_may_not_be_locked_is_an_error_with_the_remedy(folder: str) -> None:
    command = [*QWICK, "run", folder, "hello", "--max-tokens", "1"]
    done = subprocess.run(
        [*command, "--mlock"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=without_the_right_to_lock,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5
    assert done.stderr.count(b"\n") == 1
    assert b"ulimit -l" in done.stderr


def test_a_terminal_that_is_not_utf8_gets_question_marks_and_no_traceback(folder: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [*QWICK, "run", folder, "hello", "--seed", "1", "--max-tokens", "50"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 0
    assert b"?" in done.stdout  # for U+FFFD


def test_stats_go_to_standard_error(folder: str) -> None:
    done = qwick("run", folder, "hello", "--raw", "--max-tokens", "4", "--temperature", "0", "--stats")
    line = re.sub(r"[\d,]+\.\d+", "N", done.stderr.decode())
    parts = ("loaded in N s", "prompt 1 tokens, N tok/s", "answer 4 tokens, N tok/s", "first token after N s")
    assert line == " · ".join((*parts, "ended by length\n"))


def test_json_stats_are_the_last_line_of_standard_error(folder: str) -> None:
    options = ("--raw", "--max-tokens", "4", "--temperature", "0", "--threads", "1", "--format", "q8_0")
    done = qwick("run", folder, "hello", *options, "--stats", "--json-stats")
    counts = json.loads(done.stderr.decode().splitlines()[-1])
    assert list(counts) == list(JSON_STATS)
    expected = {"model": folder, "format": "q8_0", "threads": 1, "threads_batch": 1, "finish_reason": "length"}
    expected |= {"prompt_tokens": 1, "generated_tokens": 4}
    assert {key: counts[key] for key in expected} == expected
    for key in ("load_seconds", "prompt_seconds", "decode_seconds", "weight_bytes", "cache_bytes"):
        assert counts[key] > 0
    assert counts["decode_tokens_per_second"] == pytest.approx(3 / counts["decode_seconds"])


def test_words_need_no_quotes(folder: str) -> None:
    options = ("--seed", "3", "--max-tokens", "8")
    assert qwick("run", folder, "what", "is", "this", *options).stdout == qwick(
        "run", folder, "what is this", *options
    ).stdout  # fmt: skip


def test_standard_input_goes_before_the_words(folder: str) -> None:
    options = ("--seed", "3", "--max-tokens", "8", "--raw")
    piped = qwick("run", folder, "two", *options, stdin=b"one\n")
    assert piped.stdout == qwick("run", folder, "one\n\ntwo", *options).stdout
    assert piped.stdout != qwick("run", folder, "two", *options).stdout


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """It begins to reason and does not come to an end."""
    folder = write_small_model(tmp_path_factory.mktemp("thinker"))
    (folder / "chat_template.jinja").write_text((TEMPLATES / "qwen3.5_0.8b_2b.jinja").read_text())
    return str(folder)


def test_reasoning_without_an_answer_is_told(thinker: str) -> None:
    options = ("--think", "--max-tokens", "5", "--temperature", "0")
    done = qwick("run", thinker, "hi", *options)
    assert (done.returncode, done.stdout) == (0, b"\n")
    assert b"still thinking" in done.stderr
    assert b"--no-think" in done.stderr


def test_reasoning_goes_to_a_terminal_and_not_into_the_pipe(thinker: str, tmp_path: Path) -> None:
    command = (*QWICK, "run", thinker, "hi", "--think", "--max-tokens", "5", "--seed", "1")
    piped = 'exec "$@" </dev/null >answer'
    with Terminal(*command, home=tmp_path, NO_COLOR="") as terminal:
        assert terminal.end() == 0
    assert b"\x1b[2m" in terminal.raw
    with Terminal("/bin/sh", "-c", f"cd {tmp_path}; {piped}", "sh", *command, home=tmp_path) as terminal:
        assert terminal.end() == 0
    assert b"\x1b[2m" in terminal.raw
    assert (tmp_path / "answer").read_bytes() == b"\n"
    with Terminal(*command, "--hide-thinking", home=tmp_path) as terminal:
        assert terminal.end() == 0
    assert b"\x1b[2m" not in terminal.raw


def test_a_closed_standard_output_is_no_traceback(folder: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" >&-', "sh", *QWICK, "run", folder, "hi", "--max-tokens", "2"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["run", "no-such-model", "hi"], 2, "no-such-model"),
        (["run", "model.gguf", "hi"], 2, "model.gguf"),
        (["run", "What is 17 + 25?"], 2, "the prompt after it"),
        (["run", "FOLDER", ""], 2, "empty"),
        (["run", "FOLDER"], 2, "empty"),
        (["run", "FOLDER", "hi", "--raw", "--think"], 2, "--raw"),
        (["run", "FOLDER", "hi", "--raw", "--system", "x"], 2, "--system"),
        (["run", "FOLDER", "hi", "--raw", "--file", "x"], 2, "--file"),
        (["run", "FOLDER", "hi", "--file", "no-such-file"], 2, "no-such-file"),
        (["run", "FOLDER", "hi", "--file", "/"], 2, "directory"),
        (["run", "FOLDER", "hi", "--file", "/dev/zero"], 2, "8 MiB"),
        (["run", "FOLDER", "hi", "--file", sys.executable], 2, "UTF-8"),
        (["run", "FOLDER", "hi", "--system", "@no-such-file"], 2, "no-such-file"),
        (["run", "FOLDER", "hi", "--temperature", "-1"], 2, "temperature"),
        (["run", "FOLDER", "hi", "--format", "q3"], 2, "q8_0"),
        (["run", "FOLDER", "hi", "--presence-penalty", "3"], 2, "presence_penalty"),
        (["run", "FOLDER", "hi", "--logit-bias", "5"], 2, "1234=-5"),
        (["run", "FOLDER", "hi", "--logit-bias", "5=x"], 2, "'5=x'"),
        (["run", "FOLDER", "hi", "--logit-bias", "99999999=1"], 2, "99999999"),
        (["run", "FOLDER", "hi", "--kv-format", "q4_0"], 2, "f16, bf16, q8_0, f32"),
        (["run", "FOLDER", "hi", "--stop", ""], 2, "--stop"),
        (["run", "FOLDER", "hi", "--threads", "0"], 2, "threads"),
        (["run", "FOLDER", "hi", "--think"], 6, "--no-think"),
        (["run", "FOLDER", "hi " * 999, "--ctx-size", "64"], 5, "--ctx-size"),
        (["run", "FOLDER", b"\xff", "--raw"], 2, "surrogate"),
        (["inspect", "no-such-model"], 2, "no-such-model"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    folder: str, arguments: list[str | bytes], code: int, complaint: str
) -> None:
    words = [folder if word == "FOLDER" else word for word in arguments]
    done = subprocess.run([*QWICK, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    assert done.returncode == code
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("qwick: error: ")
    assert complaint in lines[0]


def test_a_damaged_model_is_one_line_with_its_exit_code(folder: str, tmp_path: Path) -> None:
    for file in Path(folder).iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "model.safetensors").unlink()
    weights = (Path(folder) / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    done = qwick("run", str(tmp_path), "hi")
    assert done.returncode == 3
    assert done.stderr.count(b"\n") == 1


def test_a_wrong_option_is_code_2() -> None:
    assert qwick("run", "--no-such-option").returncode == 2


def test_standard_input_that_is_no_text_is_refused(folder: str) -> None:
    done = qwick("run", folder, stdin=b"\xff\xfe")
    assert done.returncode == 2
    assert b"UTF-8" in done.stderr


def test_a_terminal_without_a_prompt_gets_help_instead_of_silence() -> None:
    controller, terminal = pty.openpty()
    try:
        done = subprocess.run([*QWICK, "run", "pocket"], stdin=terminal, capture_output=True, timeout=60, check=False)
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 2
    assert b"write it after the model" in done.stderr
    assert b"qwick chat pocket" in done.stderr


def test_loading_shows_on_a_terminal_only(folder: str) -> None:
    controller, terminal = pty.openpty()
    try:
        command = [*QWICK, "run", folder, "hello", "--max-tokens", "1"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal, timeout=60, check=True
        )
        shown = os.read(controller, 1 << 16)
    finally:
        os.close(controller)
        os.close(terminal)
    assert b"loading" in shown
    assert b"loading" not in done.stdout


def start_long_answer(folder: str) -> subprocess.Popen[bytes]:
    """One that ends only when its context is full: the tokens that end answers are forbidden."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, and by children too, in background jobs
    ends = Tokenizer.open(Path(folder)).stop_ids
    forbidden = [word for token_id in ends for word in ("--logit-bias", f"{token_id}=-inf")]
    process = subprocess.Popen(
        [*QWICK, "run", folder, "hello", "--seed", "1", *forbidden, "--ctx-size", str(LONGEST)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.read(1)
    return process


def test_ctrl_c_ends_with_130_and_no_traceback(folder: str) -> None:
    process = start_long_answer(folder)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == b""


def test_a_reader_that_goes_away_is_no_error_to_read_about(folder: str) -> None:
    process = start_long_answer(folder)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141
