"""The whole table of docs/performance.md: measures what is missing, row by row, and writes the page.

    python benchmarks/peers/table.py PEERS [ROW …] [--again] [--pairs N] [--tokens N] [--out DIR] [--list]

PEERS is the folder that benchmarks/peers/build.sh filled. Each row is one `qwick bench --json`, which is printed, and
one file in DIR/MACHINE/, so a disturbed row is repeated alone: name it, with --again. Without names all rows that have
no file are measured. Weights are random, written once into the store (QWICK_MODELS; 13 GB for all). A row that cannot
be run here is skipped and says why. Nothing else should run meanwhile: the load stands beside each row.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.peers.page import write_page  # noqa: E402

from qwick.ops.native import default_threads, describe_machine, most_threads  # noqa: E402
from qwick.thread_choice import processor_name  # noqa: E402

NATIVE = ("plain", "amx")  # the better of the two is what we compare with


@dataclass(frozen=True)
class Row:
    """One call of `qwick bench`. asked: the ratio to the peer, and the share of the read stream, to be reached."""

    name: str
    size: str
    format: str
    tokens: int
    pairs: int
    options: str = ""
    peers: tuple[str, ...] = NATIVE
    isa: str = ""
    asked_ratio: float | None = None
    asked_share: float | None = None
    prompt: bool = False  # reads so many tokens instead of decoding them

    def arguments(self, peers: Path, pairs: int | None = None, tokens: int | None = None) -> list[str]:
        """Of `qwick bench`. Peers that were not built are left out."""
        length = str(tokens or self.tokens)
        phase = ["-p", length, "-n", "0"] if self.prompt else ["-p", "0", "-n", length]
        found = ["--random-weights", f"qwen3.5:{self.size}", "--format", self.format, *phase]
        found += self.options.split()
        for peer in self.peers:
            if (peers / peer / "bin" / "llama-bench").exists():
                found += ["--against", str(peers / peer / "bin")]
        return [*found, "-r", str(pairs or self.pairs), "--json"]


ROWS = (
    Row("0.8b-q4_k_m", "0.8b", "Q4_K_M", 64, 7, asked_ratio=2.0, asked_share=0.85),
    Row("0.8b-q8_0", "0.8b", "Q8_0", 64, 7, asked_share=0.85),
    Row("0.8b-bf16", "0.8b", "BF16", 64, 7, asked_share=0.85),
    Row("0.8b-q4_0", "0.8b", "Q4_0", 64, 7, asked_share=0.85),
    Row("2b-q4_k_m", "2b", "Q4_K_M", 64, 5, asked_ratio=2.0, asked_share=0.85),
    Row("4b-q4_k_m", "4b", "Q4_K_M", 32, 5, asked_ratio=2.0, asked_share=0.85),
    Row("9b-q4_k_m", "9b", "Q4_K_M", 32, 3, asked_ratio=2.0, asked_share=0.85),
    Row("0.8b-8-sequences", "0.8b", "Q4_K_M", 32, 7, "--batch 8", asked_ratio=2.5),
    Row("0.8b-avx2", "0.8b", "Q4_K_M", 64, 7, "", ("avx2",), "avx2", asked_ratio=1.6),
    Row("0.8b-avx_vnni", "0.8b", "Q4_K_M", 64, 7, "", ("avx2",), "avx_vnni", asked_ratio=1.6),
    Row("0.8b-depth", "0.8b", "Q4_K_M", 16, 7, "--depth 0,16384,131072", ()),
    Row("0.8b-depth-peer", "0.8b", "Q4_K_M", 16, 1, "--depth 0,16384"),
    Row("0.8b-threads", "0.8b", "Q4_K_M", 32, 5),
    Row("0.8b-prompt", "0.8b", "Q4_K_M", 512, 5, asked_ratio=4.0, prompt=True),
    Row("0.8b-prompt-q8_0", "0.8b", "Q8_0", 512, 5, asked_ratio=4.0, prompt=True),
    Row("0.8b-prompt-bf16", "0.8b", "BF16", 512, 5, asked_ratio=4.0, prompt=True),
    Row("0.8b-prompt-4096", "0.8b", "Q4_K_M", 4096, 1, asked_ratio=4.0, prompt=True),
    Row("4b-prompt", "4b", "Q4_K_M", 512, 3, asked_ratio=4.0, prompt=True),
    Row("9b-prompt", "9b", "Q4_K_M", 512, 1, asked_ratio=4.0, prompt=True),
    Row("0.8b-prompt-avx2", "0.8b", "Q4_K_M", 512, 5, "", ("avx2",), "avx2", asked_ratio=3.0, prompt=True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", type=Path, metavar="PEERS")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(row.name for row in ROWS))
    parser.add_argument("--again", action="store_true", help="measure rows anew that have a file")
    parser.add_argument("--pairs", type=int, help="another number of rounds than each row's own")
    parser.add_argument("--tokens", type=int, help="another length than each row's own: for a try")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance")
    parser.add_argument("--list", action="store_true", help="say what would be done, and do nothing")
    options = parser.parse_args()
    unknown = set(options.rows) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    folder = options.out / machine_slug()
    for row in ROWS:
        wanted = not options.rows or row.name in options.rows
        if wanted and (options.again or not (folder / f"{row.name}.json").exists()):
            arguments = row.arguments(options.peers.absolute(), options.pairs, options.tokens)
            measure(row, arguments, options.peers.absolute(), folder, dry=options.list)
    if not options.list:
        published = ROOT / "docs" / "performance"
        page = published.with_suffix(".md") if options.out.resolve() == published.resolve() else None
        write_page(options.out.resolve(), page, [row.name for row in ROWS])


def measure(row: Row, arguments: list[str], peers: Path, folder: Path, *, dry: bool) -> None:
    """Run one row and keep what it found; skipped where this machine or the peers do not allow it."""
    reason = why_not(row, peers)
    if reason:
        print(f"{row.name}: skipped, {reason}", flush=True)
        return
    arguments = with_threads(row, arguments)
    forced = {"QWICK_ISA": row.isa} if row.isa else {}
    command = shlex.join([*(f"{key}={value}" for key, value in forced.items()), "qwick", "bench", *arguments])
    print(f"{row.name}: {command}", flush=True)
    if dry:
        return
    program = [sys.executable, "-m", "qwick", "bench", *arguments]
    done = subprocess.run(program, env=os.environ | forced, stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        sys.exit(f"{row.name}: qwick bench failed with {done.returncode}; what was measured before is kept")
    found = {
        "row": row.name,
        "asked": {"ratio": row.asked_ratio, "share": row.asked_share},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command.replace(str(peers), "PEERS"),
        "machine": machine(),
        "report": without_paths(json.loads(done.stdout), peers),
    }
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{row.name}.new"
    new.write_text(json.dumps(found, indent=1) + "\n")
    new.replace(folder / f"{row.name}.json")


def why_not(row: Row, peers: Path) -> str:
    """Empty when the row can be run."""
    if row.isa and row.isa not in describe_machine("").possible_isas:
        return f"this CPU or this build has no {row.isa}"
    if row.name.endswith("threads") and default_threads()[0] < 3:
        return "two cores show no scaling"
    if row.peers and not any((peers / peer / "bin" / "llama-bench").exists() for peer in row.peers):
        return f"benchmarks/peers/build.sh did not build {' or '.join(row.peers)}"
    return ""


def with_threads(row: Row, arguments: list[str]) -> list[str]:
    """For the row on scaling: powers of two up to all cores."""
    if not row.name.endswith("threads"):
        return arguments
    cores = default_threads()[0]
    counts = sorted({2**i for i in range(5) if 2**i <= cores} | {min(cores, 16)})
    return [*arguments, "-t", ",".join(map(str, counts))]


def without_paths(report: dict[str, Any], peers: Path) -> dict[str, Any]:
    """Files by their names, peers by their variants: nothing of one machine's folders is published."""

    def variant(path: str) -> str:
        return Path(path).relative_to(peers).parts[0]

    model = report["model"] | {"path": Path(report["model"]["path"]).name}
    results = [
        row
        | {
            "best_peer": row["best_peer"] and variant(row["best_peer"]),
            "peers": {variant(path): found for path, found in row["peers"].items()},
        }
        for row in report["results"]
    ]
    names = {variant(path): name for path, name in report["peers"].items()}
    return report | {"model": model, "results": results, "peers": names}


def machine() -> dict[str, Any]:
    """What a figure depends on, as far as it can be told."""
    from qwick import __version__

    return {
        "processor": processor_name() or platform.machine(),
        "cores": default_threads()[0],
        "hardware_threads": most_threads(),
        "best_isa": describe_machine("").isa,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "huge_pages": describe_machine("").huge_pages,
        "kernel": ".".join(platform.release().split("-")[0].split(".")[:2]),
        "compiler": _first_line("c++", "--version"),
        "python": platform.python_version(),
        "qwick": f"{__version__}, commit {_commit()}",
    }


def machine_slug() -> str:
    """A folder's name: processor, cores, and best instruction set (virtual machines hide which processor it is)."""
    words = re.findall(r"[a-z0-9]+", processor_name().lower())
    kept = (word for word in words if word not in ("r", "tm", "cpu", "processor"))
    return "-".join([*kept, str(default_threads()[0]), describe_machine("").isa.replace("_", "-")])


def _commit() -> str:
    changed = _first_line(
        "git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", "--", "src", "kernels"
    )
    return _first_line("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return next(iter(done.stdout.splitlines()), "")


if __name__ == "__main__":
    main()
