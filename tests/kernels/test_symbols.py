"""Code compiled for one instruction set stays in its own functions: the linker must never choose it for everyone.

An inline function of a shared header becomes a weak symbol in every object that uses it, and the linker keeps one of
them. Kept from an AVX-512 object, it would crash the CPUs that only ever asked for the scalar kernels.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Of the real build: sanitizers add symbols of their own (build/sanitize).
OBJECTS = sorted(ROOT.glob("build/cp*/CMakeFiles/qwick_kernels.dir/kernels/*/*_avx*.cpp.o"))
ENTRY = re.compile(r"qwick::(avx2|avx_vnni|avx512|avx512_vnni)::fill_\w+\(qwick::Kernels&\)")


def symbols(path: Path) -> list[tuple[str, str]]:
    """(type letter of nm, demangled name) of every symbol that other objects can see."""
    listing = subprocess.run(["nm", "-C", str(path)], check=True, capture_output=True, text=True).stdout
    rows = [line[17:].split(" ", 1) for line in listing.splitlines() if len(line) > 19]
    return [(kind, name) for kind, name in rows if kind not in "abdrtnN?"]


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")
@pytest.mark.skipif(not OBJECTS, reason="no object files under build/: run `make build`")
def test_isa_objects_define_only_their_entry_points():
    for path in OBJECTS:
        visible = [(kind, name) for kind, name in symbols(path) if kind != "U"]
        assert visible, f"{path} defines nothing"
        for kind, name in visible:
            assert kind == "T", f"{path}: weak or shared symbol {kind} {name}"
            assert ENTRY.fullmatch(name), f"{path}: {name} is visible outside its file"


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")
@pytest.mark.skipif(not OBJECTS, reason="no object files under build/: run `make build`")
def test_isa_objects_call_nothing_but_memory_copies():
    allowed = re.compile(r"mem(cpy|set|move)|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_")
    for path in OBJECTS:
        for kind, name in symbols(path):
            assert kind != "U" or allowed.fullmatch(name), f"{path} calls {name}"
