"""The peer llama.cpp as the package xllamacpp brings it: its shared library, run in a child process."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any, cast

from qwick.bench.cases import Case
from qwick.bench.llama_bench import run_program
from qwick.errors import UsageError

PACKAGE = "xllamacpp"
_CHILD = "qwick.bench.llama_child"


def installed_library() -> Path:
    """The package's extension module, which exports llama.cpp's C functions. Raises UsageError."""
    spec = util.find_spec(PACKAGE)
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    found = next((path for folder in folders for path in sorted(folder.glob(f"{PACKAGE}*.so"))), None)
    if found is None:
        raise UsageError(f"the package {PACKAGE} is not installed; pip install {PACKAGE}, or give a llama-bench")
    return found


class LlamaLibrary:
    """`measure` starts the child anew, as llama-bench is: nothing of it stays in memory while we are measured."""

    def __init__(self, library: Path, model: Path, kv_format: str = "f16") -> None:
        self._library, self._model, self._kv_format = library, model, kv_format
        self.version = ""  # known after the first run

    @property
    def name(self) -> str:
        return f"{PACKAGE} {self.version}".rstrip()

    def measure(self, cases: Sequence[Case]) -> Mapping[Case, float]:
        """Raises UsageError when the child fails."""
        # -P: what lies in the folder we were started from must not be imported by chance.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        request = json.dumps(self.request(cases))
        output = run_program(Path(sys.executable), ["-P", "-m", _CHILD], request, environment)
        self.version, rates = parse_answer(output, len(cases))
        return dict(zip(cases, rates, strict=True))

    def request(self, cases: Sequence[Case]) -> dict[str, Any]:
        """What the child reads."""
        keys = ("is_prompt", "num_tokens", "depth", "batch", "threads")
        return {
            "library": str(self._library),
            "model": str(self._model),
            "kv_format": self._kv_format,
            "cases": [{key: getattr(case, key) for key in keys} for case in cases],
        }


def parse_answer(output: str, count: int) -> tuple[str, list[float]]:
    """(version, a rate for each case). Raises UsageError."""
    try:
        answer: Any = json.loads(output)
        version, rates = str(answer["version"]), cast("list[Any]", answer["rates"])
        found = [float(rate) for rate in rates]
    except (ValueError, KeyError, TypeError):
        version, found = "", []
    if len(found) != count or not all(rate > 0 and math.isfinite(rate) for rate in found):
        raise UsageError(f"{PACKAGE} gave no rates; install another version of it, or give a llama-bench")
    return version, found
