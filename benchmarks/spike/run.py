"""Builds and runs the spike: the measurements that settled qwick's layouts before its kernels were written.

python benchmarks/spike/run.py [replay delta_rule decode_stream panels] [--check] [--simde INCLUDE_DIR]

Every program compares its fast variants with a plain definition before it times them. A program is built once per
instruction set; those that this processor lacks are built, named and not run. --simde also checks the AVX-512 and AMX
code on a machine without them (headers of the package simde-py: the folder that holds `simde/x86/avx512.h`).
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CXX = os.environ.get("CXX", "g++")
FLAGS = "-std=c++17 -O3 -fno-math-errno -ffp-contract=fast -pthread -Wall -Wextra".split()
# GCC 12 warns about its own AVX-512 headers.
QUIET = "-Wno-psabi -Wno-uninitialized -Wno-maybe-uninitialized -Wno-unused-function".split()

AVX2 = ["avx2", "fma", "f16c"]
AVX512 = ["avx512f", "avx512bw", "avx512vl", "avx512dq", "fma", "f16c"]
# Program -> instruction sets as (name, lanes of f32, compiler's names of the extensions).
VARIANTS: dict[str, list[tuple[str, int, list[str]]]] = {
    "delta_rule": [("avx2", 8, AVX2), ("avx512", 16, AVX512)],
    "decode_stream": [
        ("avx2", 8, AVX2),
        ("avx_vnni", 8, [*AVX2, "avxvnni"]),
        ("avx512_vnni", 16, [*AVX512, "avx512vnni"]),
    ],
    "panels": [
        ("avx2", 8, AVX2),
        ("avx512", 16, [*AVX512, "avx512vnni"]),
        ("avx512_bf16", 16, [*AVX512, "avx512vnni", "avx512bf16"]),
        ("amx", 16, [*AVX512, "avx512vnni", "avx512bf16", "amx-tile", "amx-bf16"]),
    ],
}
# /proc/cpuinfo spells these otherwise.
CPUINFO_NAMES = {
    "avxvnni": "avx_vnni",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "amx-tile": "amx_tile",
    "amx-bf16": "amx_bf16",
}


def cpu_flags() -> set[str]:
    """The instruction sets of this processor, as Linux names them."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":")[1].split())
    return set()


def build(source: str, output: Path, options: list[str]) -> None:
    """Compiles one source file, or ends with a remedy."""
    command = [CXX, *FLAGS, *QUIET, *options, str(HERE / source), "-o", str(output)]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"cannot build {source}: needs g++ 12 or later (set CXX to choose another compiler)")


def run(command: list[str | Path], folder: Path) -> None:
    """Runs one program; `folder` holds the compiled module."""
    if subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": str(folder)}).returncode != 0:
        sys.exit(f"{Path(command[-1]).name} failed")


def run_replay(folder: Path) -> None:
    """Question (a)."""
    module = folder / f"replay_module{sysconfig.get_config_var('EXT_SUFFIX')}"
    build("replay_module.cpp", module, ["-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"])
    print("# replay", flush=True)
    run([sys.executable, HERE / "replay.py"], folder)


def run_program(name: str, folder: Path, check_only: bool, simde: str | None) -> None:
    """One program on every instruction set that this processor has."""
    here = cpu_flags()
    for isa, lanes, extensions in VARIANTS[name]:
        binary = folder / f"{name}_{isa}"
        build(f"{name}.cpp", binary, [f"-DSPIKE_LANES={lanes}", *(f"-m{e}" for e in extensions)])
        missing = [e for e in extensions if CPUINFO_NAMES.get(e, e) not in here]
        print(f"\n# {name}, {isa}" + (f": not on this CPU ({' '.join(missing)})" if missing else ""), flush=True)
        if not missing:
            run([binary, *(["check"] if check_only else [])], folder)
    if simde is not None:
        binary = folder / f"{name}_simde"
        build(
            f"{name}.cpp", binary, ["-w", "-DSPIKE_SIMDE", "-DSPIKE_LANES=16", f"-I{simde}", *(f"-m{e}" for e in AVX2)]
        )
        print(f"\n# {name}, the 16-lane code emulated, correctness only", flush=True)
        run([binary, "check"], folder)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["replay", *VARIANTS]
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--check", action="store_true", help="correctness only, no timing")
    parser.add_argument("--simde", metavar="INCLUDE_DIR", help="also check AVX-512 and AMX code by emulation")
    arguments = parser.parse_args()
    if unknown := set(arguments.programs) - set(names):
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.programs or names:
            if name == "replay":
                run_replay(Path(scratch))
            else:
                run_program(name, Path(scratch), arguments.check, arguments.simde)


if __name__ == "__main__":
    main()
