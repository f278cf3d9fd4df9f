"""The peer llama.cpp: its own `llama-bench` on the same GGUF file, one call a group of cases."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from qwick.bench.cases import Case
from qwick.errors import UsageError

XLLAMACPP = "xllamacpp"
_HOW = "benchmarks/peers/build.sh builds one: give the path of its llama-bench"
_GENEROUS_SECONDS = 3600


def open_peer(program: str, model: Path, kv_format: str = "f16") -> "LlamaBench":
    """Raises UsageError for what cannot be run, and a model that the peer cannot read."""
    if program == XLLAMACPP:
        # Its extension module holds a server and no benchmark; timing text over HTTP would measure something else.
        raise UsageError(f"the package {XLLAMACPP} offers no benchmark; {_HOW}")
    if model.suffix.lower() != ".gguf":
        raise UsageError(
            f"llama-bench reads GGUF files and {model.name} is a folder; qwick convert makes a file of it, or take "
            "--random-weights"
        )
    path = Path(program).expanduser()
    if path.is_dir():
        path /= "llama-bench"
    if not path.is_file() or not os.access(path, os.X_OK):
        raise UsageError(f"{str(path)!a:.200} is no program; {_HOW}")
    return LlamaBench(path.absolute(), model, kv_format)


class LlamaBench:
    """`measure` runs it once for cases that share depth and threads; those of several sequences are left out."""

    def __init__(self, program: Path, model: Path, kv_format: str = "f16") -> None:
        self._program, self._model, self._kv_format = program, model, kv_format
        self.version = ""  # known after the first run

    @property
    def name(self) -> str:
        return f"llama-bench {self.version}".rstrip()

    def measure(self, cases: Sequence[Case]) -> Mapping[Case, float]:
        """Raises UsageError when it fails or says something else than rates."""
        alone = [case for case in cases if case.batch == 1]
        if not alone:
            return {}
        output = self._run(self.arguments(alone))
        self.version, rates = parse_output(output, alone)
        return rates

    def arguments(self, cases: Sequence[Case]) -> list[str]:
        """One repetition after its own warm-up; the rest as it is by default."""
        lengths = [
            ",".join(str(c.num_tokens) for c in cases if c.is_prompt == is_prompt) for is_prompt in (True, False)
        ]
        prompts, answers = (text or "0" for text in lengths)
        threads, depth = str(cases[0].threads), str(cases[0].depth)
        cache = ["-ctk", self._kv_format, "-ctv", self._kv_format]
        options = ["-p", prompts, "-n", answers, "-d", depth, "-t", threads, "-r", "1", *cache, "-o", "json"]
        return ["-m", str(self._model), *options]

    def _run(self, arguments: list[str]) -> str:
        try:
            done = subprocess.run(
                [self._program, *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_GENEROUS_SECONDS,
            )
        except OSError as error:
            raise UsageError(f"{self._program} cannot be run: {error.strerror}; {_HOW}") from None
        except subprocess.TimeoutExpired:
            raise UsageError(f"{self._program} ran for an hour; ask for fewer tokens, or a smaller --depth") from None
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise UsageError(
                f"{self._program} failed with {done.returncode}, saying {said!a:.200}; run it on {self._model} yourself"
            )
        return done.stdout


def parse_output(output: str, cases: Sequence[Case]) -> tuple[str, dict[Case, float]]:
    """What `llama-bench -o json` printed -> (build, rate by case). Raises UsageError when a case is missing."""
    try:
        rows: object = json.loads(output)
    except ValueError:
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in cast("list[object]", rows)):
        raise UsageError(f"llama-bench printed no list of results; {_HOW}")
    found = cast("list[dict[str, Any]]", rows)
    rates: dict[Case, float] = {}
    for case in cases:
        wanted = {
            "n_prompt": case.num_tokens if case.is_prompt else 0,
            "n_gen": 0 if case.is_prompt else case.num_tokens,
            "n_depth": case.depth,
            "n_threads": case.threads,
        }
        rate = next((row.get("avg_ts") for row in found if wanted.items() <= row.items()), None)
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not rate > 0:
            raise UsageError(f"llama-bench printed no rate of {case.name}; {_HOW}")
        rates[case] = float(rate)
    build = found[0].get("build_commit", "") if found else ""
    return (build if isinstance(build, str) else ""), rates
