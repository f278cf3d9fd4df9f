"""Which number of threads is used: asked for, found before, usual; and files that hostile or careless hands touched."""

import json
import shutil
from pathlib import Path

import pytest

from qwick import pocket
from qwick.errors import StateWarning
from qwick.formats import Q8_0
from qwick.llm import LLM
from qwick.model.source import open_source
from qwick.text.tokenizer import Tokenizer
from qwick.thread_choice import Machine, Record, ThreadChoice, records, records_folder

MACHINE = Machine("a processor", "avx2", 4, 8)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(Machine, "here", classmethod(lambda _: MACHINE))


def choice(*asked: int | None, format=None) -> ThreadChoice:
    with open_source(pocket.FOLDER) as source:
        return ThreadChoice("x", source, format, *asked)


class Backend:
    def set_threads(self, *counts: int) -> None:
        pass


def found(*counts: int | None) -> Path:
    """What a trial of this model found, saved."""
    choice()._settled(*counts)
    (path,) = records_folder().iterdir()
    return path


def numbers(chosen: ThreadChoice) -> tuple[int, int]:
    return chosen.threads, chosen.threads_batch


def test_at_first_the_usual_number_is_used_and_others_are_tried():
    assert numbers(choice()) == (4, 4)
    assert choice().trial(Backend(), 512) is not None


def test_what_was_found_is_used_from_then_on():
    found(2, None)
    assert numbers(choice()) == (2, 4)
    assert choice().trial(Backend(), 512) is not None  # of prompts
    found(2, 8)
    assert numbers(choice()) == (2, 8)
    assert choice().trial(Backend(), 512) is None


@pytest.mark.parametrize(
    ("asked", "expected", "tried"), [((3,), (3, 3), False), ((3, 5), (3, 5), False), ((None, 5), (2, 5), False)]
)
def test_what_is_asked_for_comes_first(asked, expected, tried):
    found(2, 8)
    assert numbers(choice(*asked)) == expected
    assert (choice(*asked).trial(Backend(), 512) is not None) == tried


def test_decoding_is_tried_beside_prompt_threads_that_were_asked_for():
    chosen = choice(None, 5)
    assert chosen.trial(Backend(), 512) is not None
    chosen._settled(2, 5)
    assert numbers(choice()) == (2, 4)  # what was asked for was not found


def test_what_is_found_for_one_kind_of_steps_keeps_what_is_known_of_the_other():
    first, second = choice(), choice()  # opened at the same time
    first._settled(None, 8)
    second._settled(2, None)
    assert numbers(choice()) == (2, 8)
    choice(None, 5)._settled(1, 5)  # prompts as asked for
    assert numbers(choice()) == (1, 8)


def test_another_format_or_machine_is_another_matter(monkeypatch):
    found(2, 2)
    assert numbers(choice(format=Q8_0)) == (4, 4)
    monkeypatch.setattr(Machine, "here", classmethod(lambda _: Machine("a processor", "avx2", 8, 8)))
    assert numbers(choice()) == (8, 8)
    assert records() == []


def test_the_same_tensors_elsewhere_are_the_same_model(tmp_path):
    found(2, 2)
    shutil.copytree(pocket.FOLDER, tmp_path / "moved")
    with open_source(tmp_path / "moved") as source:
        assert ThreadChoice("y", source, None).threads == 2


DAMAGED = ["", "{", "[]", "null", "[" * 5000, "x" * 9000, '{"version": 1}', "\xff"]


@pytest.mark.parametrize("text", DAMAGED)
@pytest.mark.filterwarnings("ignore::qwick.errors.StateWarning")  # of what `found` opens
def test_a_damaged_file_is_ignored_with_a_warning_and_replaced(text):
    path = found(2, 2)
    path.write_text(text, encoding="latin-1")
    with pytest.warns(StateWarning, match="is damaged and ignored"):
        assert numbers(choice()) == (4, 4)
    assert records() == []
    found(1, 2)
    assert numbers(choice()) == (1, 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threads", 0),
        ("threads", 9),
        ("threads", True),
        ("threads", "2"),
        ("threads_batch", 1.0),
        ("version", 2),
        ("model", None),
        ("model_key", "another"),
        ("machine", {}),
        ("machine", {"processor": "b", "isa": "avx2", "usual_threads": 4, "most_threads": 8}),
        ("machine", {"processor": "b", "isa": "avx2", "usual_threads": "4", "most_threads": 8}),
    ],
)
def test_a_file_that_says_what_cannot_be_is_ignored(key, value):
    path = found(2, 2)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.warns(StateWarning):
        assert numbers(choice()) == (4, 4)


def test_saving_replaces_whole_files_and_leaves_no_others(monkeypatch):
    path = found(2, 2)
    before = path.read_text()

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(Path, "replace", fail)
    choice()._settled(1, 1)
    assert [file.read_text() for file in records_folder().iterdir()] == [before]


def test_a_folder_that_cannot_be_written_is_no_failure(monkeypatch, tmp_path):
    (tmp_path / "qwick").write_text("a file in the way")
    choice()._settled(2, 2)
    assert numbers(choice()) == (4, 4)
    assert records() == []
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    choice()._settled(2, 2)
    assert numbers(choice()) == (4, 4)
    assert records() == []


def test_records_are_of_this_machine_by_name():
    for name, machine in (("b", MACHINE), ("a", MACHINE), ("c", Machine("another", "scalar", 1, 1))):
        Record(name, f"key of {name}", machine, 1, None).save()
    assert [record.model for record in records()] == ["a", "b"]


def test_an_answer_is_enough_to_find_the_number_and_stays_the_same(monkeypatch):
    machine = Machine("a processor", "avx2", 1, 2)
    monkeypatch.setattr(Machine, "here", classmethod(lambda _: machine))

    endless = dict.fromkeys(Tokenizer.open(pocket.FOLDER).stop_ids, -100.0)

    def answer(**options) -> tuple[int, ...]:
        with LLM(**options) as llm:
            return llm.generate("Once upon", max_tokens=24, temperature=0, logit_bias=endless).token_ids

    during = answer()
    assert len(during) == 24
    (record,) = records()
    assert record.model == "pocket"
    assert record.threads in (1, 2)
    assert record.threads_batch is None
    assert answer() == during == answer(threads=2)
