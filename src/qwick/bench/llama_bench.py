"""The peer llama.cpp by its own programs, on the same GGUF file: one call a group of cases.

`llama-bench` measures one sequence, `llama-batched-bench`, which lies beside it, several together.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from qwick.bench.cases import Case
from qwick.errors import UsageError

HOW = "benchmarks/peers/build.sh builds one: give the path of its llama-bench"
GENEROUS_SECONDS = 3600
_STEP_TOKENS = 512  # llama-bench's default of -ub; the other program would take another one


class LlamaBench:
    """`measure` takes cases that share depth and threads; at a depth, prompts of several sequences are left out.

    program     the path of llama-bench; opening refuses what cannot be run (UsageError)
    batched     whether cases of several sequences will come
    """

    def __init__(self, program: Path, model: Path, kv_format: str = "f16", *, batched: bool = False) -> None:
        if not is_program(program):
            raise UsageError(f"{str(program)!a:.200} is no program; {HOW}")
        self._program, self._model, self._kv_format = program, model, kv_format
        self._batched = program.with_name("llama-batched-bench")
        if batched and not is_program(self._batched):
            raise UsageError(
                f"there is no llama-batched-bench beside {program}, which cases of several sequences need; "
                "benchmarks/peers/build.sh builds it, --batch 1 does without"
            )
        self.version = ""  # known after the first run

    @property
    def name(self) -> str:
        return f"llama-bench {self.version}".rstrip()

    def measure(self, cases: Sequence[Case]) -> Mapping[Case, float]:
        """Raises UsageError when it fails or says something else than rates."""
        rates: dict[Case, float] = {}
        alone = [case for case in cases if case.batch == 1]
        if alone:
            self.version, rates = parse_output(run_program(self._program, self.arguments(alone)), alone)
        for group, prompts, answers in _batched_calls(cases):
            arguments = self.batched_arguments(group, prompts, answers)
            rates |= parse_batched(run_program(self._batched, arguments), group)
        return rates

    def arguments(self, cases: Sequence[Case]) -> list[str]:
        """Of llama-bench: one repetition after its own warm-up; the rest as it is by default."""
        lengths = [
            ",".join(str(c.num_tokens) for c in cases if c.is_prompt == is_prompt) for is_prompt in (True, False)
        ]
        prompts, answers = (text or "0" for text in lengths)
        threads, depth = str(cases[0].threads), str(cases[0].depth)
        options = ["-p", prompts, "-n", answers, "-d", depth, "-t", threads, "-r", "1", *self._cache, "-o", "json"]
        return ["-m", str(self._model), *options]

    def batched_arguments(self, cases: Sequence[Case], prompt_lens: Sequence[int], answers: Sequence[int]) -> list[str]:
        """Of llama-batched-bench: every prompt length with every answer and batch."""
        batches = sorted({case.batch for case in cases})
        context = batches[-1] * (max(prompt_lens) + max(answers) + 256)  # each sequence's share is rounded
        threads = str(cases[0].threads)
        lists = {"-npp": prompt_lens, "-ntg": answers, "-npl": batches}
        options = [text for flag, values in lists.items() for text in (flag, ",".join(map(str, values)))]
        sizes = ["-c", str(context), "-b", "2048", "-ub", str(_STEP_TOKENS), "-t", threads, "-tb", threads]
        return ["-m", str(self._model), *options, *sizes, *self._cache, "--output-format", "jsonl"]

    @property
    def _cache(self) -> list[str]:
        return ["-ctk", self._kv_format, "-ctv", self._kv_format]


def _batched_calls(cases: Sequence[Case]) -> Iterator[tuple[list[Case], list[int], list[int]]]:
    """(cases, prompt lengths, answer lengths) of each call. A prompt of 1 stands for none: at 0 it prints no number."""
    decode = [case for case in cases if case.batch > 1 and not case.is_prompt]
    if decode:
        yield decode, [max(1, decode[0].depth)], sorted({case.num_tokens for case in decode})
    prompts = [case for case in cases if case.batch > 1 and case.is_prompt and not case.depth]
    if prompts:
        yield prompts, sorted({case.num_tokens for case in prompts}), [1]


def is_program(path: Path) -> bool:
    """A file that may be run."""
    return path.is_file() and os.access(path, os.X_OK)


def run_program(
    program: Path, arguments: Sequence[str], stdin: str = "", environment: Mapping[str, str] | None = None
) -> str:
    """What it printed. Raises UsageError when it cannot be run, fails or takes an hour."""
    try:
        done = subprocess.run(
            [program, *arguments],
            check=False,
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GENEROUS_SECONDS,
        )
    except OSError as error:
        raise UsageError(f"{program} cannot be run: {error.strerror}; {HOW}") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{program} ran for an hour; ask for fewer tokens, or a smaller --depth") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UsageError(
            f"{program} failed with {done.returncode}, saying {said!a:.200}; run it with {' '.join(arguments)[:500]} "
            "yourself"
        )
    return done.stdout


def parse_output(output: str, cases: Sequence[Case]) -> tuple[str, dict[Case, float]]:
    """What `llama-bench -o json` printed -> (build, rate by case). Raises UsageError when a case is missing."""
    found = _objects(output)
    rates: dict[Case, float] = {}
    for case in cases:
        wanted = {
            "n_prompt": case.num_tokens if case.is_prompt else 0,
            "n_gen": 0 if case.is_prompt else case.num_tokens,
            "n_depth": case.depth,
            "n_threads": case.threads,
        }
        rates[case] = _rate(found, wanted, "avg_ts", case)
    build = found[0].get("build_commit", "") if found else ""
    return (build if isinstance(build, str) else ""), rates


def parse_batched(output: str, cases: Sequence[Case]) -> dict[Case, float]:
    """What `llama-batched-bench --output-format jsonl` printed -> tokens per second of all sequences together."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    found = _objects(f"[{','.join(lines)}]")
    rates: dict[Case, float] = {}
    for case in cases:
        wanted = {"pl": case.batch, "n_threads": case.threads}
        wanted |= {"pp": case.num_tokens} if case.is_prompt else {"pp": max(1, case.depth), "tg": case.num_tokens}
        rates[case] = _rate(found, wanted, "speed_pp" if case.is_prompt else "speed_tg", case)
    return rates


def _objects(text: str) -> list[dict[str, Any]]:
    try:
        rows: object = json.loads(text)
    except ValueError:
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in cast("list[object]", rows)):
        raise UsageError(f"llama-bench printed no list of results; {HOW}")
    return cast("list[dict[str, Any]]", rows)


def _rate(found: Sequence[Mapping[str, Any]], wanted: Mapping[str, int], key: str, case: Case) -> float:
    rate = next((row.get(key) for row in found if wanted.items() <= row.items()), None)
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate < float("inf"):
        raise UsageError(f"llama-bench printed no rate of {case.name}; {HOW}")
    return float(rate)
