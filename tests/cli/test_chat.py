"""`qwick chat` as people meet it, at a terminal, and as scripts do, through pipes."""

import json
import re
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from qwick import pocket
from qwick.cli.main import commands
from qwick.cli.stats import JSON_STATS
from qwick.text.tokenizer import Tokenizer
from tests.cli.terminal_session import ALT_ENTER, CTRL_C, CTRL_D, ENTER, READY, TAKEN, UP, Terminal
from tests.small_model import LONGEST, write_small_model

RUNNER = CliRunner()
TEMPLATES = Path(__file__).parents[1] / "text" / "templates"
STATS = r"prompt ([\d,]+) tokens(?: \(([\d,]+) new\))?, .* ended by (\w+)"
ANSWER = r"\s*[^\s\ue000]"  # its beginning
SHORT = ("--max-tokens", "5", "--temperature", "0")
ENDLESS = ("--temperature", "2", "--top-k", "0", "--top-p", "1", "--seed", "1", "--ctx-size", str(LONGEST))
needs_pocket = pytest.mark.skipif(
    not (pocket.FOLDER / "model.safetensors").exists(), reason="this checkout has no embedded model yet"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_small_model(tmp_path_factory.mktemp("thinker"))
    (folder / "chat_template.jinja").write_text((TEMPLATES / "qwen3.5_0.8b_2b.jinja").read_text())
    return str(folder)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chat(home: Path, *arguments: str, **environment: str) -> Terminal:
    return Terminal(sys.executable, "-m", "qwick", "chat", *arguments, home=home, **environment)


def script(text: str | bytes, *arguments: str) -> Result:
    return RUNNER.invoke(commands, ["chat", *arguments], input=text)


def number(text: str) -> int:
    return int(text.replace(",", ""))


def stats(shown: re.Match[str]) -> tuple[int, int, str]:
    """Prompt tokens, new ones of them, how it ended."""
    prompt, new, ended_by = shown.groups()
    return number(prompt), number(new or prompt), ended_by


# --- at a terminal ---------------------------------------------------------------------------------------------------


@needs_pocket
def test_a_second_turn_reads_only_what_is_new(home: Path) -> None:
    with chat(home, "pocket", "--temperature", "0") as terminal:
        terminal.expect("pocket listens")
        terminal.enter("What is 17 + 25?")
        terminal.expect("42")
        terminal.enter("/stats")
        first, first_new, _ = stats(terminal.expect(STATS))
        terminal.enter("What is 3 + 4?", "/stats")
        second, second_new, ended_by = stats(terminal.expect(STATS))
        terminal.enter("/exit")
        assert terminal.end() == 0
    block = len(Tokenizer.open(pocket.FOLDER).encode("<think>\n\n</think>\n\n", allow_special=True))
    assert first_new == first
    assert 0 < second_new <= second - (first - block) < second  # less where the answer was read meanwhile
    assert ended_by == "stop"


def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(home: Path, folder: str) -> None:
    with chat(home, folder, *ENDLESS) as terminal:
        terminal.enter("hello")
        terminal.expect(TAKEN + ANSWER)
        terminal.type(CTRL_C)
        terminal.expect("stopped")
        terminal.enter("/stats")
        first, _, ended_by = stats(terminal.expect(STATS))
        assert ended_by == "cancelled"
        terminal.enter("and now?")
        terminal.expect(TAKEN + ANSWER)
        terminal.type(CTRL_C)
        terminal.expect("stopped")
        terminal.enter("/stats")
        second, new, _ = stats(terminal.expect(STATS))
        assert second > first
        assert 0 < new <= second - first
        terminal.expect(READY)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
        assert b"Traceback" not in terminal.raw


def test_keys_at_the_prompt(home: Path, folder: str) -> None:
    """Ctrl-C clears the line, Alt-Enter and a backslash begin new ones, Ctrl-D leaves."""
    with chat(home, folder, *SHORT) as terminal:
        terminal.expect(READY)
        terminal.type("never said")
        terminal.expect("never said")
        terminal.type(CTRL_C)
        terminal.enter(f"one{ALT_ENTER}two\\{ENTER}three")
        terminal.enter(f'"""{ENTER}four{ENTER}{ENTER}five{ENTER}"""', " /not a command", "/save chat.json")
        terminal.expect("saved 3 questions")
        terminal.expect(READY)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    questions = [m["content"] for m in saved(home / "chat.json")["messages"] if m["role"] == "user"]
    assert questions == ["one\ntwo\nthree", "four\n\nfive", " /not a command"]


def test_a_broken_character_is_an_error_and_not_the_end(home: Path, folder: str) -> None:
    with chat(home, folder, *SHORT) as terminal:
        terminal.expect(READY)
        terminal.type(b"caf\xe9" + ENTER.encode())
        terminal.expect("error: the text is not Unicode")
        terminal.expect(READY)
        terminal.type(CTRL_C)
        terminal.enter("/exit")
        assert terminal.end() == 0


def test_a_wrong_command_is_one_line_and_the_chat_goes_on(home: Path, folder: str) -> None:
    with chat(home, folder, *SHORT) as terminal:
        for line, complaint in (
            ("/nonsense", "error: there is no command '/nonsense'"),
            ("/think maybe", "error: /think is on or off"),
            ("/think on", "error: this model's chat template has no switch"),
            ("/stats 3", "error: /stats is on or off"),
            ("/save", "error: /save needs a file"),
            ("/load nowhere.json", "error: cannot read 'nowhere.json'"),
            ("/stats", "there was no answer yet"),
            ("/help", "/think .on.off."),
        ):
            terminal.enter(line)
            terminal.expect(complaint)
        terminal.enter("/bye")
        assert terminal.end() == 0


def test_reasoning_is_dimmed_and_can_be_turned_off(home: Path, thinker: str) -> None:
    with chat(home, thinker, *SHORT) as terminal:
        terminal.enter("/think")
        terminal.expect("thinking is off")
        terminal.enter("hello", "/think on")
        terminal.expect("thinking is on")
        assert b"\x1b[2m" not in terminal.raw
        terminal.enter("hello")
        terminal.expect("there is no answer yet; try /think off")
        assert terminal.raw.count(b"\x1b[2m") == 1
        terminal.expect(READY)
        terminal.type(CTRL_C)  # the question came back
        terminal.enter("/think off")
        terminal.expect("thinking is off")
        terminal.enter("/exit")
        assert terminal.end() == 0


def test_without_colours_reasoning_is_named(home: Path, thinker: str) -> None:
    with chat(home, thinker, "--think", *SHORT, NO_COLOR="1") as terminal:
        terminal.enter("hello")
        terminal.expect("Thinking:")
        terminal.expect(READY)
        assert b"\x1b[2m" not in terminal.raw


def test_a_question_without_an_answer_comes_back(home: Path, folder: str) -> None:
    with chat(home, folder, *SHORT, "--ctx-size", "40") as terminal:
        terminal.enter("a question that is far too long for so short a context")
        terminal.expect("error: the chat and this question do not fit the context of 40 tokens; /save FILE")
        terminal.enter(", is it not?")
        terminal.expect("so short a context, is it not")
        terminal.expect("error: the chat and this question do not fit")
        terminal.expect(READY)
        terminal.type(CTRL_C)
        terminal.enter("/exit")
        assert terminal.end() == 0


def test_what_was_typed_is_remembered_for_the_next_chat(home: Path, folder: str) -> None:
    with chat(home, folder, *SHORT) as terminal:
        terminal.enter("remember me", "/exit")
        assert terminal.end() == 0
    with chat(home, folder, *SHORT) as terminal:
        terminal.expect(READY)
        terminal.type(UP + UP)
        terminal.expect("remember me")
        terminal.type(CTRL_C)
        terminal.enter("/exit")
        assert terminal.end() == 0
    (path,) = (path for path in home.rglob("chat_history"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_remembered_when_asked_so(home: Path, folder: str) -> None:
    with chat(home, folder, *SHORT, "--no-history") as terminal:
        terminal.enter("a secret", "/exit")
        assert terminal.end() == 0
    assert not list(home.rglob("*history*"))


def test_a_dumb_terminal_gets_no_escape_sequences(home: Path, folder: str) -> None:
    with chat(home, folder, *SHORT, TERM="dumb") as terminal:
        terminal.expect("listens[^>]*>>>")
        terminal.type(f"hello{ENTER}")
        terminal.expect("hello[^>]*>>>")
        terminal.type(f"/exit{ENTER}")
        assert terminal.end() == 0
        assert b"\x1b" not in terminal.raw.partition(b"listens")[2]


def test_answers_may_go_to_a_file(home: Path, folder: str) -> None:
    command = shlex.join([sys.executable, "-m", "qwick", "chat", folder, *SHORT])
    with Terminal("/bin/sh", "-c", f"{command} > answers", home=home) as terminal:
        terminal.enter("hello", "/save chat.json", "/exit")
        assert terminal.end() == 0
    answer = saved(home / "chat.json")["messages"][1]["content"]
    assert (home / "answers").read_text() == answer + "\n" * (not answer.endswith("\n"))


# --- through pipes ---------------------------------------------------------------------------------------------------


def saved(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@needs_pocket
def test_answers_alone_go_to_standard_output() -> None:
    done = script("What is 17 + 25?\n\n/stats\nWhat is 17 + 25?\n", "pocket", "--temperature", "0", "--stats")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "42\n42\n"
    lines = [stats(match) for match in re.finditer(STATS, done.stderr)]
    assert len(lines) == 3
    assert lines[0] == lines[1]
    assert lines[2][1] < lines[2][0]


def test_no_input_is_no_error(folder: str) -> None:
    for text in ("", "\n \n", "/exit\nnever\n"):
        done = script(text, folder)
        assert (done.exit_code, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("text", "options", "code", "complaint"),
    [
        ("/nonsense\nhello\n", (), 2, "/nonsense"),
        (b"hello\n\xff\n", SHORT, 2, "line 2"),
        ("hello " * 99, ("--ctx-size", "64"), 5, "/clear"),
        ("hello\n", ("--think",), 6, "--no-think"),
        ("hello\n", ("--temperature", "-1"), 2, "temperature"),
        ("hello\n", ("--stop", ""), 2, "--stop"),
    ],
)
def test_the_first_error_ends_a_script(
    folder: str, text: str | bytes, options: tuple[str, ...], code: int, complaint: str
) -> None:
    done = script(text, folder, *options)
    assert done.exit_code == code
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("qwick: error: ")]
    assert complaint in line


def test_a_model_that_is_none_is_refused(home: Path) -> None:
    assert script("hello\n", "no-such-model").exit_code == 2


def test_a_chat_is_saved_and_goes_on(home: Path, thinker: str) -> None:
    done = script("/think off\nhello\nagain\n/save a chat.json\n", thinker, *SHORT, "--system", "Be brief.")
    assert done.exit_code == 0, done.stderr
    first = saved(home / "a chat.json")
    assert (first["model"], first["system"], first["think"]) == (thinker, "Be brief.", False)
    assert [m["role"] for m in first["messages"]] == ["user", "assistant"] * 2
    assert [m["content"] for m in first["messages"][::2]] == ["hello", "again"]
    # Loaded elsewhere, the third question gets the answer it would have got.
    loaded = script("/load a chat.json\nthird\n/save b.json\n", thinker, *SHORT)
    straight = script("hello\nagain\nthird\n/save c.json\n", thinker, *SHORT, "--system", "Be brief.")
    assert loaded.exit_code == straight.exit_code == 0, loaded.stderr
    assert saved(home / "b.json")["messages"] == saved(home / "c.json")["messages"]
    assert straight.stdout.endswith(loaded.stdout)


def test_what_another_model_said_may_be_gone_on_with(home: Path, folder: str, thinker: str) -> None:
    assert script("/think on\n/save chat.json\n", thinker).exit_code == 0
    done = script("/load chat.json\nhello\n/save chat.json\n", folder, *SHORT)
    assert done.exit_code == 0, done.stderr
    assert f"it was with {thinker}, now {folder} answers" in done.stderr
    assert (saved(home / "chat.json")["model"], saved(home / "chat.json")["think"]) == (folder, None)


def test_a_broken_file_changes_nothing(home: Path, folder: str) -> None:
    (home / "notes.txt").write_text("important")
    for command in ("/load notes.txt", "/save notes.txt"):
        done = script(f"{command}\n", folder)
        assert done.exit_code == 2
        assert "notes.txt' " in done.stderr
    assert (home / "notes.txt").read_text() == "important"


def test_system_messages_are_set_shown_and_removed(home: Path, folder: str) -> None:
    text = "/system\n/system Be \\\nbrief.\n/save a.json\n/system -\n/save b.json\n"
    done = script(text, folder)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines()[0] == "there is no system message"
    assert done.stderr.splitlines()[1] == r"system message: Be \nbrief."
    assert saved(home / "a.json")["system"] == "Be \nbrief."
    assert saved(home / "b.json")["system"] is None


def test_clear_forgets_the_questions_and_not_the_system_message(home: Path, folder: str) -> None:
    done = script("hello\n/clear\n/save a.json\nhello\n", folder, *SHORT, "--system", "Be brief.", "--stats")
    assert done.exit_code == 0, done.stderr
    assert "forgot 1 question" in done.stderr
    assert (saved(home / "a.json")["messages"], saved(home / "a.json")["system"]) == ([], "Be brief.")
    before, after = (stats(match) for match in re.finditer(STATS, done.stderr))
    assert before[0] == after[0]
    first, second = done.stdout[: len(done.stdout) // 2], done.stdout[len(done.stdout) // 2 :]
    assert first == second


def test_files_go_before_the_first_message(home: Path, folder: str) -> None:
    (home / "notes.txt").write_text("important\n")
    done = script("hello\nagain\n/save a.json\n", folder, *SHORT, "--file", "notes.txt")
    assert done.exit_code == 0, done.stderr
    questions = [message["content"] for message in saved(home / "a.json")["messages"][::2]]
    assert questions == ["notes.txt:\n```\nimportant\n```\n\nhello", "again"]
    assert script("hello\n", folder, "--file", "none.txt").exit_code == 2


def test_json_stats_are_a_line_for_each_answer(home: Path, folder: str) -> None:
    done = script("hello\nagain\n", folder, *SHORT, "--json-stats", "--threads", "1")
    assert done.exit_code == 0, done.stderr
    first, second = (json.loads(line) for line in done.stderr.splitlines() if line.startswith("{"))
    assert set(first) == set(second) == set(JSON_STATS)
    assert (first["model"], first["threads"], first["cached_tokens"]) == (folder, 1, 0)
    assert 0 < second["cached_tokens"] < second["prompt_tokens"]


def test_an_answer_cut_off_by_the_context_is_kept_and_said(home: Path, folder: str) -> None:
    done = script("hello\n/save a.json\n", folder, *ENDLESS[:-2], "--ctx-size", "64")
    assert done.exit_code == 0, done.stderr
    assert "the context of 64 tokens is full: the answer is cut off; /save FILE keeps the chat" in done.stderr
    assert len(saved(home / "a.json")["messages"]) == 2


@needs_pocket
def test_reasoning_is_saved_and_not_said_again(home: Path) -> None:
    lines = ["/think on", "What is 17 + 25?", "/save a.json", "What is 3 + 4?", "/save b.json"]
    done = script("\n".join(lines), "pocket", "--temperature", "0", "--stats")
    assert done.exit_code == 0, done.stderr
    _, answer, _, later = saved(home / "b.json")["messages"]
    assert saved(home / "a.json")["messages"][1] == answer
    assert answer["reasoning_content"]
    assert done.stdout == f"{answer['content']}\n{later['content']}\n"
    # The second prompt has room for both questions and the first answer, and not for the reasoning.
    counts = [stats(match) for match in re.finditer(STATS, done.stderr)]
    tokenizer = Tokenizer.open(pocket.FOLDER)
    added = (
        f"{answer['content']}<|im_end|>\n<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    block = tokenizer.encode("<think>\n", allow_special=True)
    assert counts[1][1] == len(tokenizer.encode(added, allow_special=True))
    assert counts[1][0] == counts[0][0] - len(block) + counts[1][1]


def test_a_thought_without_an_answer_is_said_and_not_kept(home: Path, thinker: str) -> None:
    done = script("hello\n/save a.json\n", thinker, "--think", *SHORT)
    assert done.exit_code == 0, done.stderr
    assert "--max-tokens is reached: there is no answer yet" in done.stderr
    assert saved(home / "a.json")["messages"] == []


def test_help_names_every_option() -> None:
    result = RUNNER.invoke(commands, ["chat", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    names = "system file json-stats think no-think hide-thinking no-history stats temperature seed stop threads mlock"
    for option in names.split():
        assert f"--{option}" in result.stdout
