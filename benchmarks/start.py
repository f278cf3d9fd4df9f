"""How long `qwick run MODEL` takes to its first token, and how much memory it takes at most.

    python benchmarks/start.py MODEL [--repeats 7] [-- further arguments of `qwick run`]

Each repeat is a new process; the model's files are read once before, so that the page cache holds them. Time from
starting the process to the first byte on its standard output; peak resident memory as the kernel counted it (ru_maxrss
of the process: anonymous memory and what it touched of mapped files). Medians with their range.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

QUESTION = "What is the capital of France?"
NAMES = ("first token", "whole run", "peak memory")
COMMAND = [sys.executable, "-m", "qwick", "run"]
# An installed package has its bytecode; a source tree gets it with the first run.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def once(model: str, arguments: list[str]) -> tuple[float, float, float]:
    """Seconds to the first byte, seconds in all, peak resident MiB of one run."""
    begin = time.perf_counter()
    child = subprocess.Popen(
        [*COMMAND, model, QUESTION, "--max-tokens", "8", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert child.stdout
    os.read(child.stdout.fileno(), 1)
    first = time.perf_counter() - begin
    child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(child.stderr.read().decode() if child.stderr else "the command failed")
    return first, time.perf_counter() - begin, usage.ru_maxrss / 1024


def warm(path: Path) -> int:
    """Reads all files into the page cache; bytes."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with file.open("rb") as opened:
            while opened.read(16 << 20):
                pass
    return sum(file.stat().st_size for file in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--repeats", type=int, default=7)
    asked, others = parser.parse_known_args()
    arguments = [argument for argument in others if argument != "--"]
    path = Path(asked.model)
    if path.exists():
        print(f"files {warm(path) / 2**20:,.0f} MiB; load {os.getloadavg()[0]:.1f}")
    runs = [once(asked.model, arguments) for _ in range(asked.repeats)]
    for name, values, unit in zip(NAMES, zip(*runs, strict=True), ("s", "s", "MiB"), strict=True):
        middle = statistics.median(values)
        print(f"{name:<12} median {middle:8.3f} {unit:<4} ({min(values):.3f} to {max(values):.3f}, {len(values)} runs)")


if __name__ == "__main__":
    main()
