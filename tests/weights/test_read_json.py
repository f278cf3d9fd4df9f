"""A JSON file from a stranger: an object, or a CheckpointError that names the file, soon and cheaply."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwick.errors import CheckpointError
from qwick.weights.checkpoint import JSON_LIMIT_BYTES, read_json
from tests.limits import in_memory, in_time

MIB = 1 << 20


def test_reads_an_object_and_the_last_of_repeated_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": 1, "b": [1.5, null, "\\u00e9\\ud83d\\ude00"], "a": 2}')
    assert read_json(path) == {"a": 2, "b": [1.5, None, "é😀"]}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b'{"a":1', b"[]", b"7", b'"a"', b"null", b"true", b"{} x", b"{'a': 1}", b'{"a": NaN}',
        b'{"a": -Infinity}', b'{"a": "\xff"}', b"\xff\xfe{\x00}\x00", b'\xef\xbb\xbf{"a": 1}', b'{"a": 1,}',
        b'{"a": "\\ud800"}', b'{"\\udfff": 1}', b'{"a": 1' + b"0" * 5000 + b"}", b'{"a": "\n"}', b"\0" * 10,
    ],
)  # fmt: skip
def test_refuses_and_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        read_json(path)


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b"[],", b'"a":0,', b"\\u0041", b"1"])
@pytest.mark.parametrize("start", [b"", b'{"a":[', b'{"a":"'])
def test_hostile_json_costs_little(tmp_path: Path, start: bytes, unit: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(start + unit * ((JSON_LIMIT_BYTES - len(start)) // len(unit)))
    with pytest.raises(CheckpointError), in_time():
        read_json(path)
    with pytest.raises(CheckpointError), in_memory(64 * MIB):
        read_json(path)


def test_refuses_a_long_file_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(CheckpointError, match=f"more than the {JSON_LIMIT_BYTES}"), in_memory(MIB):
        read_json(path)
    path.write_text("{}        ")
    with pytest.raises(CheckpointError, match="more than the 9"):
        read_json(path, limit=9)


def test_refuses_what_is_no_regular_file_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(CheckpointError, match=str(path)):
            read_json(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with suppress(CheckpointError):
        assert isinstance(read_json(path), dict)
