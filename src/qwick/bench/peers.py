"""The engines that we are compared with: `--against`, once or several times."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from qwick.bench.cases import Case
from qwick.bench.llama_bench import LlamaBench
from qwick.bench.llama_library import PACKAGE, LlamaLibrary, installed_library
from qwick.errors import UsageError


class Peer(Protocol):
    """Another engine on the same file."""

    @property
    def name(self) -> str: ...

    def measure(self, cases: Sequence[Case]) -> Mapping[Case, float]:
        """One rate for each of the cases that it can do; they share depth and threads."""
        ...


def open_peers(
    programs: Sequence[str], model: Path, kv_format: str = "f16", *, batched: bool = False
) -> dict[str, Peer]:
    """By what the user called them: `xllamacpp`, or the path of a llama-bench or of the folder it lies in.

    Raises UsageError for what cannot be run, and for a model that the peers cannot read.
    """
    twice = next((program for program in programs if programs.count(program) > 1), None)
    if twice is not None:
        raise UsageError(f"--against names {twice!a:.200} twice; leave one out")
    if programs and model.suffix.lower() != ".gguf":
        raise UsageError(
            f"llama.cpp reads GGUF files and {model.name} is a folder; qwick convert makes a file of it, or take "
            "--random-weights"
        )
    return {program: _open(program, model, kv_format, batched=batched) for program in programs}


def _open(program: str, model: Path, kv_format: str, *, batched: bool) -> Peer:
    if program == PACKAGE:
        return LlamaLibrary(installed_library(), model, kv_format)
    path = Path(program).expanduser()
    if path.is_dir():
        path /= "llama-bench"
    return LlamaBench(path.absolute(), model, kv_format, batched=batched)
