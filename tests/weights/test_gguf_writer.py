"""Files that gguf-py reads back as they were meant, and nothing left behind when writing fails."""

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType
from hypothesis import given
from hypothesis import strategies as st

from qwick.errors import CapacityError, UsageError
from qwick.formats import BF16, F32, Q4_K, Q8_0
from qwick.weights import gguf_writer
from qwick.weights.gguf_writer import ALIGNMENT, NewTensor, check_writable, write_gguf


def tensor(name="t", shape=(2, 4), value=1.0):
    values = np.full(shape, value, np.float32)
    return NewTensor(name, shape, F32, lambda: [values])


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def read(path):
    reader = GGUFReader(path)
    keys = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    return keys, {t.name: t for t in reader.tensors}


def test_values_keep_their_types(tmp_path):
    keys = {
        "general.architecture": "qwen35",
        "a.u32": 7,
        "a.largest": 2**32 - 1,
        "a.i32": -7,
        "a.u64": 2**40,
        "a.i64": -(2**40),
        "a.f32": 1e-6,
        "a.yes": True,
        "a.no": False,
        "a.text": "größe\n\x00…",
        "a.empty": "",
        "a.top_k": np.int32(20),
        "a.strings": ["a", "", "ü"],
        "a.types": np.array([1, 3, -4], np.int32),
        "a.flags": np.array([True, False]),
        "a.scores": np.array([0.5], np.float32),
    }
    write_gguf(tmp_path / "x.gguf", keys, [])
    reader = GGUFReader(tmp_path / "x.gguf")
    types = {key: [t.name for t in field.types] for key, field in reader.fields.items()}
    expected = {
        "a.u32": ["UINT32"],
        "a.largest": ["UINT32"],
        "a.i32": ["INT32"],
        "a.u64": ["UINT64"],
        "a.i64": ["INT64"],
        "a.f32": ["FLOAT32"],
        "a.yes": ["BOOL"],
        "a.top_k": ["INT32"],
        "a.strings": ["ARRAY", "STRING"],
        "a.types": ["ARRAY", "INT32"],
        "a.flags": ["ARRAY", "BOOL"],
        "a.scores": ["ARRAY", "FLOAT32"],
    }
    assert {key: types[key] for key in expected} == expected
    for key, value in keys.items():
        found = reader.fields[key].contents()
        assert np.array_equal(found, np.float32(value) if isinstance(value, float) else value), key
    assert reader.fields["a.u32"].types == [GGUFValueType.UINT32]


@given(
    st.lists(st.tuples(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 3)), min_size=1, max_size=6)
)
def test_tensors_come_back_whatever_their_shapes_and_pieces(tmp_path_factory, plans):
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape).astype(np.float32) for shape, _ in plans]
    tensors = [
        NewTensor(f"t{i}", v.shape, F32, lambda v=v, parts=parts: np.array_split(v.reshape(-1), parts))
        for i, (v, (_, parts)) in enumerate(zip(values, plans, strict=True))
    ]
    size = write_gguf(path, {"general.architecture": "x"}, tensors)
    assert size == path.stat().st_size
    _, found = read(path)
    for i, v in enumerate(values):
        assert tuple(found[f"t{i}"].shape[::-1]) == v.shape
        assert found[f"t{i}"].data_offset % ALIGNMENT == 0
        np.testing.assert_array_equal(found[f"t{i}"].data.reshape(v.shape), v)


def test_blocks_and_bf16_bits_are_written_as_they_are(tmp_path):
    blocks = np.arange(3 * 144, dtype=np.uint8).reshape(3, 144)
    halves = np.arange(6, dtype=np.uint16).reshape(2, 3)
    bytes_ = np.arange(34, dtype=np.uint8)
    write_gguf(
        tmp_path / "x.gguf",
        {"general.architecture": "x"},
        [
            NewTensor("k", (3, 256), Q4_K, lambda: [blocks[:1], blocks[1:]]),
            NewTensor("h", (2, 3), BF16, lambda: [halves]),
            NewTensor("b", (1, 32), Q8_0, lambda: [bytes_]),
        ],
    )
    _, found = read(tmp_path / "x.gguf")
    assert (found["k"].tensor_type.name, list(found["k"].shape)) == ("Q4_K", [256, 3])
    np.testing.assert_array_equal(found["k"].data, blocks)
    np.testing.assert_array_equal(found["h"].data.view(np.uint16).reshape(2, 3), halves)
    np.testing.assert_array_equal(found["b"].data.reshape(-1), bytes_)


def test_pieces_are_taken_one_at_a_time_in_order(tmp_path):
    alive, most = 0, 0

    def pieces():
        nonlocal alive, most
        for i in range(8):
            alive += 1
            most = max(most, alive)
            yield np.full(1024, i, np.float32)
            alive -= 1

    write_gguf(tmp_path / "x.gguf", {}, [NewTensor("t", (8, 1024), F32, pieces)])
    assert most == 1


def test_an_existing_file_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists; give another name, or --force"):
        write_gguf(path, {}, [tensor()])
    assert path.read_bytes() == b"precious"
    write_gguf(path, {}, [tensor()], overwrite=True)
    assert read(path)[1]["t"].data.sum() == 8
    assert names_in(tmp_path) == ["x.gguf"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "x.gguf"

    def pieces():
        path.write_bytes(b"precious")
        yield np.zeros(8, np.float32)

    with pytest.raises(UsageError, match="appeared while"):
        write_gguf(path, {}, [NewTensor("t", (2, 4), F32, pieces)])
    assert path.read_bytes() == b"precious"
    assert names_in(tmp_path) == ["x.gguf"]


@pytest.mark.parametrize("error", [RuntimeError("broken source"), KeyboardInterrupt()])
def test_nothing_is_left_when_the_source_fails(tmp_path, error):
    def pieces():
        yield np.zeros(4, np.float32)
        raise error

    with pytest.raises(type(error)):
        write_gguf(tmp_path / "x.gguf", {}, [NewTensor("t", (2, 4), F32, pieces)])
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("count", [7, 9])
def test_pieces_that_do_not_add_up_are_a_mistake_of_the_caller(tmp_path, count):
    with pytest.raises(ValueError, match="t was given"):
        write_gguf(tmp_path / "x.gguf", {}, [NewTensor("t", (2, 4), F32, lambda: [np.zeros(count, np.float32)])])
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_to_be_full(tmp_path, monkeypatch, number):
    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(gguf_writer.os, "fsync", full)
    with pytest.raises(CapacityError, match="disk is full"):
        write_gguf(tmp_path / "x.gguf", {}, [tensor()])
    assert names_in(tmp_path) == []


def test_a_disk_too_small_is_refused_before_anything_is_read(tmp_path):
    huge = NewTensor("t", (1 << 30, 1 << 20), F32, lambda: pytest.fail("was read"))
    with pytest.raises(CapacityError, match="are free there"):
        write_gguf(tmp_path / "x.gguf", {}, [huge])
    assert names_in(tmp_path) == []


def test_a_full_device_is_an_error_not_half_a_file(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / f".x.gguf.{os.getpid()}.part").symlink_to("/dev/full")  # what is in the way is not written through
    with pytest.raises(UsageError, match="cannot be written"):
        write_gguf(tmp_path / "x.gguf", {}, [tensor()])
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/x.gguf", "there is no folder"),
        ("folder", "is a folder"),
        ("x" * 300, "not a usable|cannot be"),
        ("a\0b", "not a"),
    ],
)
def test_impossible_names_are_usage_errors(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=message):
        write_gguf(tmp_path / name, {}, [tensor()])


def test_the_file_has_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_gguf(tmp_path / "x.gguf", {}, [tensor()])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.gguf").stat().st_mode) == 0o640


def test_check_writable_agrees(tmp_path):
    check_writable(tmp_path / "new.gguf", overwrite=False)
    (tmp_path / "old.gguf").touch()
    check_writable(tmp_path / "old.gguf", overwrite=True)
    with pytest.raises(UsageError, match="exists"):
        check_writable(tmp_path / "old.gguf", overwrite=False)


def test_values_without_a_type_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.b: GGUF has no type"):
        write_gguf(tmp_path / "x.gguf", {"a.b": np.zeros(2, np.complex64)}, [])
