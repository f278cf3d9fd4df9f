"""Code compiled for one instruction set stays in its own functions: the linker must never choose it for everyone.

An inline function of a shared header becomes a weak symbol in every object that uses it, and the linker keeps one of
them. Kept from an AVX-512 object, it would crash the CPUs that only ever asked for the scalar kernels.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from qwick import _kernels

ROOT = Path(__file__).parents[2]
# Of the real build: sanitizers add symbols of their own (build/sanitize).
OBJECTS = sorted(
    path
    for ending in ("avx*", "amx")
    for path in ROOT.glob(f"build/cp*/CMakeFiles/qwick_kernels.dir/kernels/**/*_{ending}.cpp.o")
)
COMMANDS = sorted(ROOT.glob("build/cp*/compile_commands.json"))
ENTRY = re.compile(
    r"qwick::(avx2|avx_vnni|avx512|avx512_vnni|amx)::fill_\w+\(qwick::Kernels&\)|qwick::amx::multiply_tiles\(.*\)"
)


def symbols(path: Path) -> list[tuple[str, str]]:
    """(type letter of nm, demangled name) of every symbol that other objects can see."""
    listing = subprocess.run(["nm", "-C", str(path)], check=True, capture_output=True, text=True).stdout
    rows = [line[17:].split(" ", 1) for line in listing.splitlines() if len(line) > 19]
    return [(kind, name) for kind, name in rows if kind not in "abdrtnN?"]


def assert_defines_only_entries(path: Path) -> None:
    visible = [(kind, name) for kind, name in symbols(path) if kind != "U"]
    assert visible, f"{path} defines nothing"
    for kind, name in visible:
        assert kind == "T", f"{path}: weak or shared symbol {kind} {name}"
        assert ENTRY.fullmatch(name), f"{path}: {name} is visible outside its file"


needs_nm = pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")
needs_build = pytest.mark.skipif(not OBJECTS, reason="no object files under build/: run `make build`")


@needs_nm
@needs_build
def test_isa_objects_define_only_their_entry_points():
    for path in OBJECTS:
        assert_defines_only_entries(path)


@needs_nm
@pytest.mark.skipif(not COMMANDS, reason="nothing was built under build/: run `make build`")
@pytest.mark.parametrize("name", ["attention_avx2.cpp", "codec_avx2.cpp"])  # they include the headers that all share
def test_that_does_not_hang_on_what_the_optimiser_inlines(tmp_path, name):
    entry = next((e for e in json.loads(COMMANDS[-1].read_text()) if e["file"].endswith("/" + name)), None)
    if entry is None:
        pytest.skip("this machine builds no AVX2")
    command = [argument for argument in shlex.split(entry["command"]) if not argument.startswith("-O")]
    command[command.index("-o") + 1] = str(tmp_path / "plain.o")
    subprocess.run([*command, "-O0"], check=True, cwd=entry["directory"])
    assert_defines_only_entries(tmp_path / "plain.o")


@needs_nm
@pytest.mark.skipif("QWICK_SANITIZED" in os.environ, reason="sanitizers export symbols of their own")
def test_the_extension_exports_its_entry_only():
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", _kernels.__file__], check=True, capture_output=True, text=True
    )
    assert {line.split()[-1] for line in listing.stdout.splitlines()} == {"PyInit__kernels"}


@needs_nm
@needs_build
def test_isa_objects_call_nothing_but_memory_copies():
    allowed = re.compile(r"mem(cpy|set|move)|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_")
    for path in OBJECTS:
        for kind, name in symbols(path):
            assert kind != "U" or allowed.fullmatch(name), f"{path} calls {name}"
