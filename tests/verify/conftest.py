"""A small model on disk, and a way to open it as `qwick verify` does."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qwick.model.model import open_model
from qwick.model.source import open_source
from qwick.verify.report import Check, Outcome
from qwick.verify.subject import Subject
from tests.small_model import write_small_model

Open = Callable[[Path], Subject]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def open_subject() -> Iterator[Open]:
    with ExitStack() as stack:

        def opened(path: Path) -> Subject:
            source = stack.enter_context(open_source(path))
            return Subject(open_model(source, threads=2), source)

        yield opened


@pytest.fixture
def subject(folder: Path, open_subject: Open) -> Subject:
    return open_subject(folder)


def outcomes(checks: Iterator[Check]) -> dict[str, Outcome]:
    return {check.name: check.outcome for check in checks}


def failures(checks: Iterator[Check]) -> list[str]:
    return [name for name, outcome in outcomes(checks).items() if outcome != Outcome.OK]
