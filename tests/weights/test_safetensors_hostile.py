"""Whatever the bytes: a CheckpointError or the official reader's answer, within 2 s, without taking memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwick.errors import CheckpointError
from qwick.weights.safetensors import MAX_HEADER_BYTES, MAX_TENSORS, SafetensorsFile
from tests.limits import in_memory, in_time
from tests.weights.raw_safetensors import file_bytes, of_tensors, official, ours

MIB = 1 << 20
hostile = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
RIGHT = of_tensors(
    {
        "model.embed_tokens.weight": ("BF16", np.arange(24, dtype=np.uint16).reshape(8, 3)),
        "model.norm.weight": ("F32", np.ones(4, np.float32)),
        "model.A_log": ("F16", np.ones((2, 1, 2), np.float16)),
    }
)
HEADER_END = 8 + int.from_bytes(RIGHT[:8], "little")


def check(folder: Path, content: bytes) -> None:
    """Ours refuses, or sees what the official reader sees; never accepts what that one refuses."""
    wanted = official(content)
    with in_time(), in_memory(8 * MIB):
        try:
            seen = ours(folder / "a.safetensors", content)
        except CheckpointError:
            return
    if wanted is None:
        # The one exception: a dtype that only matters when its tensor is read.
        assert any(dtype not in OFFICIAL_DTYPES for dtype, _, _ in seen.values())
        return
    assert seen.keys() == wanted.keys()
    for name, (dtype, shape, data) in seen.items():
        assert wanted[name][:2] == (dtype, shape)
        assert data in (b"", wanted[name][2])


OFFICIAL_DTYPES = {"F32", "F16", "BF16"}  # of the files made here


@hostile
@given(st.integers(0, len(RIGHT) - 1))
def test_truncated(tmp_path: Path, length: int) -> None:
    with pytest.raises(CheckpointError):
        ours(tmp_path / "a.safetensors", RIGHT[:length])


@hostile
@given(st.lists(st.tuples(st.integers(0, HEADER_END - 1), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(RIGHT)
    for position, bit in flips:
        content[position] ^= 1 << bit
    check(tmp_path, bytes(content))


@hostile
@given(st.integers(0, 2**64 - 1), st.binary(max_size=64))
def test_any_header_length(tmp_path: Path, length: int, rest: bytes) -> None:
    check(tmp_path, length.to_bytes(8, "little") + rest)


@hostile
@given(st.binary(max_size=200), st.binary(max_size=16))
def test_any_header_bytes(tmp_path: Path, header: bytes, data: bytes) -> None:
    check(tmp_path, file_bytes(header, data))


sizes = st.one_of(
    st.integers(-2, 40),
    st.sampled_from([2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**128, -(2**63), "BIG"]),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), sizes, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
entries = st.one_of(
    anything,
    st.fixed_dictionaries(
        {
            "dtype": st.one_of(st.sampled_from(["F32", "F16", "BF16"]), anything),
            "shape": st.one_of(st.lists(sizes, max_size=10), anything),
            "data_offsets": st.one_of(st.tuples(sizes, sizes), anything),
        }
    ),
)


@hostile
@given(
    st.dictionaries(st.one_of(st.text(max_size=5), st.just("__metadata__")), entries, max_size=4),
    st.binary(max_size=64),
)
def test_wrong_types_and_sizes_everywhere(tmp_path: Path, header: dict[str, Any], data: bytes) -> None:
    check(tmp_path, file_bytes(json.dumps(header).replace('"BIG"', "1" + "0" * 4400), data))


@hostile
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=5))
def test_overlaps_holes_and_order(tmp_path: Path, spans: list[tuple[int, int]]) -> None:
    header = {
        f"t{i}": {"dtype": "F16", "shape": [max(0, (end - begin) // 2)], "data_offsets": [begin, end]}
        for i, (begin, end) in enumerate(spans)
    }
    check(tmp_path, file_bytes(header, bytes(12)))


TENSOR = b'{"dtype":"F32","shape":[],"data_offsets":[0,4]}'
# What the header starts with, and what then fills it.
HUGE = {
    "nested": (b"", b"["),
    "nested objects": (b"", b'{"a":'),
    "brackets in an entry": (b'{"a":{"x":[', b"[],"),
    "long shape": (b'{"a":{"shape":[', b"1,"),
    "long number": (b'{"a":{"shape":[', b"1"),
    "spaces": (b"", b" "),
    "metadata pairs": (b'{"__metadata__":{', b'"":"",'),
    "escapes": (b'{"__metadata__":{"":"', b"\\n"),
    "long name": (b'{"', b"a"),
}


@pytest.mark.parametrize("case", HUGE)
def test_a_huge_header_costs_little(tmp_path: Path, case: str) -> None:
    """Time at the longest header that the format allows, and beyond the limit of marks; memory at a tenth of it."""
    start, unit = HUGE[case]
    path = tmp_path / "a.safetensors"
    for size in (MAX_HEADER_BYTES, 9_000_000):
        header = start + unit * ((size - 100) // len(unit)) + b'":1}'
        path.write_bytes(file_bytes(header))
        with pytest.raises(CheckpointError), in_time():
            SafetensorsFile(path)
    with pytest.raises(CheckpointError), in_memory(2 * len(header) + 4 * MIB):  # as read, and as bytes
        SafetensorsFile(path)


@pytest.mark.parametrize("count", [MAX_TENSORS, MAX_TENSORS + 1, 1_000_000])
def test_many_tensors_cost_little(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_bytes(b"{" + b",".join(b'"%d":%s' % (i, TENSOR) for i in range(count)) + b"}"))
    with pytest.raises(CheckpointError, match="more than" if count > MAX_TENSORS else "begins at"), in_time():
        SafetensorsFile(path)
    if count == MAX_TENSORS:
        with pytest.raises(CheckpointError), in_memory(32 * MIB):
            SafetensorsFile(path)


def test_opening_and_windows_take_no_memory_for_the_data(tmp_path: Path) -> None:
    """A terabyte of (sparse) data: only what is asked for is read."""
    path = tmp_path / "a.safetensors"
    rows = 1 << 30
    header = {"x": {"dtype": "BF16", "shape": [rows, 512], "data_offsets": [0, rows * 1024]}}
    path.write_bytes(file_bytes(header))
    try:
        with path.open("r+b") as out:
            out.truncate(path.stat().st_size + rows * 1024)
    except OSError:
        pytest.skip("the file system has no files of a terabyte")
    with in_time(), in_memory(2 * MIB):
        file = SafetensorsFile(path)
        assert not file.read("x", rows - 1000, rows).any()
        file.close()
