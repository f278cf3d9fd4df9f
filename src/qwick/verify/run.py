"""All checks of one model, in the order in which a mistake is understood best."""

from collections.abc import Iterator
from pathlib import Path

from qwick.errors import QwickError
from qwick.model.model import open_model
from qwick.model.source import LoadProgress, Source, open_source
from qwick.ops.native import default_threads
from qwick.text.chat_template import ChatTemplate
from qwick.text.tokenizer import Tokenizer
from qwick.verify.invariances import invariance_checks
from qwick.verify.parity import parity_checks
from qwick.verify.report import Check, failed
from qwick.verify.subject import Subject
from qwick.verify.text import text_checks
from qwick.verify.weights import kernel_checks, memory_checks


def verify(path: Path, threads: int | None = None, progress: LoadProgress | None = None) -> Iterator[Check]:
    """Checks of the model in `path`, one by one. Raises what opening it raises; later errors are failed checks."""
    threads = default_threads()[0] if threads is None else threads
    with open_source(path) as source:
        yield from _guarded("text", _text(source))
        yield from _loaded(source, threads, progress)
        yield from _guarded("parity with transformers", parity_checks(source, threads))


def _loaded(source: Source, threads: int, progress: LoadProgress | None) -> Iterator[Check]:
    """What needs the model in memory, which it leaves at the end."""
    subject = Subject(open_model(source, threads=threads, progress=progress), source)
    yield from _guarded("memory equals the file", memory_checks(subject))
    yield from _guarded("kernels", kernel_checks(subject))
    yield from _guarded("same bits", invariance_checks(subject.model, subject.backend, max(2, threads)))


def _text(source: Source) -> Iterator[Check]:
    template = ChatTemplate.open(source.path, source.metadata)
    try:
        tokenizer = Tokenizer.open(source.path, source.metadata)
        yield from text_checks(tokenizer, template, source.config.vocab_size)
    finally:
        template.close()


def _guarded(group: str, checks: Iterator[Check]) -> Iterator[Check]:
    """A check that cannot be carried out has failed."""
    try:
        yield from checks
    except (QwickError, ValueError, AssertionError) as error:
        yield failed(group, "could not go on", str(error))
