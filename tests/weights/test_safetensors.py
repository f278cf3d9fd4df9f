"""A right file reads bit-equal, whole and in windows; a wrong one is refused with its name and the reason."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from qwick.errors import CheckpointError
from qwick.weights.safetensors import SafetensorsFile
from tests.weights.raw_safetensors import STORED, file_bytes, of_tensors, official, ours

# The folder may be shared between examples: each writes the file anew.
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, tuple[str, NDArray[Any]]]:
    """Random bits, NaN payloads included: nothing may change them."""
    found: dict[str, tuple[str, NDArray[Any]]] = {}
    for name in draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=5, unique=True)):
        dtype = draw(st.sampled_from(sorted(STORED)))
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
        stream = np.random.default_rng(draw(st.integers(0, 2**32)))
        count = int(np.prod(shape, dtype=np.int64))
        raw = stream.bytes(count * np.dtype(STORED[dtype]).itemsize)
        values = np.frombuffer(raw, STORED[dtype]).reshape(shape)
        if name != "__metadata__":
            found[name] = dtype, values
    return found


@shared_folder
@given(tensors(), st.data())
def test_reads_every_bit_in_any_windows(tmp_path: Path, wanted: dict[str, Any], data: st.DataObject) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(of_tensors(wanted))
    file = SafetensorsFile(path)
    assert file.tensors.keys() == wanted.keys()
    for name, (dtype, values) in wanted.items():
        info = file.tensors[name]
        assert (info.dtype, info.shape, info.num_bytes) == (dtype, values.shape, values.nbytes)
        rows = info.shape[0] if info.shape else 1
        cut = data.draw(st.integers(0, rows))
        read = np.concatenate([file.read(name, 0, cut), file.read(name, cut, rows)])
        assert read.dtype == STORED[dtype]
        assert read.shape == (values.shape or (1,))
        assert read.tobytes() == values.tobytes()
    file.close()


def test_reads_what_the_official_writer_writes(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    f32, f16 = stream.standard_normal((7, 5)).astype(np.float32), stream.standard_normal((3, 2, 2)).astype(np.float16)
    save_file({"f32": f32, "f16": f16, "i64": np.arange(3)}, tmp_path / "a.safetensors", {"format": "np"})
    file = SafetensorsFile(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(file.read("f32", 2, 6), f32[2:6])
    np.testing.assert_array_equal(file.read("f16", 0, 3), f16)
    with pytest.raises(CheckpointError, match="'i64' is stored as I64; qwick reads F32, F16, BF16"):
        file.read("i64", 0, 3)
    with pytest.raises(ValueError, match="which has 7"):
        file.read("f32", 0, 8)
    file.close()
    file.close()


def test_each_read_returns_an_array_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(of_tensors({"x": ("F32", np.arange(4, dtype=np.float32))}))
    file = SafetensorsFile(tmp_path / "a.safetensors")
    first = file.read("x", 0, 2)
    file.read("x", 2, 4)
    assert first.tolist() == [0, 1]
    first[:] = 9
    assert file.read("x", 0, 2).tolist() == [0, 1]
    file.close()


def test_an_unknown_dtype_matters_only_when_its_tensor_is_read(tmp_path: Path) -> None:
    header = {
        "odd": {"dtype": "Q3_X", "shape": [5], "data_offsets": [0, 3]},
        "fp4": {"dtype": "F4", "shape": [2], "data_offsets": [3, 4]},
        "x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    }
    (tmp_path / "a.safetensors").write_bytes(file_bytes(header, bytes(4) + np.float32(2).tobytes()))
    file = SafetensorsFile(tmp_path / "a.safetensors")
    assert file.read("x", 0, 1).tolist() == [2]
    for name in ("odd", "fp4"):
        with pytest.raises(CheckpointError, match=f"'{name}' is stored as"):
            file.read(name, 0, 1)
    file.close()


def only(entry: str) -> str:
    """A header of one tensor."""
    return f'{{"a":{entry}}}'


# Headers on which parsers differ; ENTRY stands for the right entry. The data are four zero bytes.
ODD_HEADERS = {
    "leading space": ' {"a":ENTRY}',
    "trailing space": '{"a":ENTRY} \n\t\r ',
    "trailing NUL": '{"a":ENTRY}\0',
    "trailing comma": '{"a":ENTRY,}',
    "byte order mark": '\ufeff{"a":ENTRY}',
    "other white space": '{"a":\fENTRY}',
    "white space everywhere": ENTRY.join(['{ "a" :\t', "\n}\r\n"]).replace(":[", " : [ ").replace("]", " ]"),
    "metadata null": '{"__metadata__":null,"a":ENTRY}',
    "metadata number": '{"__metadata__":{"a":1},"a":ENTRY}',
    "metadata array": '{"__metadata__":[],"a":ENTRY}',
    "metadata twice": '{"__metadata__":{},"__metadata__":{},"a":ENTRY}',
    "metadata key twice": '{"__metadata__":{"k":"1","k":"2"},"a":ENTRY}',
    "metadata escaped": '{"\\u005f_metadata__":{},"a":ENTRY}',
    "metadata is a tensor": '{"__metadata__":ENTRY}',
    "metadata lone surrogate": '{"__metadata__":{"k":"\\ud800"},"a":ENTRY}',
    "entry null": '{"a":null}',
    "entry empty": '{"a":{}}',
    "field twice": only(ENTRY.replace("}", ',"dtype":"F32"}')),
    "field missing": '{"a":{"dtype":"F32","shape":[1]}}',
    "three offsets": only(ENTRY.replace("4]", "4,4]")),
    "one offset": only(ENTRY.replace("0,4]", "4]")),
    "float": only(ENTRY.replace("[1]", "[1.0]")),
    "exponent": only(ENTRY.replace("[1]", "[1e0]")),
    "minus zero": only(ENTRY.replace("[0,", "[-0,")),
    "negative": only(ENTRY.replace("[1]", "[-1]")),
    "negative twice": only(ENTRY.replace("[1]", "[-1,-1]")),
    "leading zero": only(ENTRY.replace("[1]", "[01]")),
    "plus": only(ENTRY.replace("[1]", "[+1]")),
    "true": only(ENTRY.replace("[1]", "[true]")),
    "string": only(ENTRY.replace("[1]", '["1"]')),
    "NaN": only(ENTRY.replace("[1]", "[NaN]")),
    "null shape": only(ENTRY.replace("[1]", "null")),
    "rank 0": only(ENTRY.replace("[1]", "[]")),
    "rank 8": only(ENTRY.replace("[1]", "[1,1,1,1,1,1,1,1]")),
    "2^64": only(ENTRY.replace("[1]", "[18446744073709551616]")),
    "wraps to 1": only(ENTRY.replace("[1]", "[18446744073709551617]")),
    "product wraps": only(ENTRY.replace("[1]", "[4294967296,4294967296]")),
    "product wraps to 1": only(ENTRY.replace("[1]", "[3,6148914691236517206]")),
    "10^4400": only(ENTRY.replace("[1]", "[1%s]" % ("0" * 4400))),
    "overflow then zero": '{"b":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[4,4]},"a":ENTRY}',
    "empty at the start": '{"b":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":ENTRY}',
    "empty inside another": '{"b":{"dtype":"F32","shape":[0],"data_offsets":[2,2]},"a":ENTRY}',
    "empty beyond": '{"b":{"dtype":"F32","shape":[0],"data_offsets":[9,9]},"a":ENTRY}',
    "same bytes twice": '{"b":ENTRY,"a":ENTRY}',
    "hole": '{"a":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}}',
    "left over": '{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}',
    "beyond the end": '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "backwards": '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
    "half a byte": '{"a":{"dtype":"F4","shape":[7],"data_offsets":[0,4]}}',
    "nibbles": '{"a":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}',
    "name surrogate": '{"\\ud800":ENTRY}',
    "name surrogate pair": '{"\\ud83d\\ude00":ENTRY}',
    "name raw surrogate": '{"\ud800":ENTRY}',
    "name half pair": '{"\\ud83d\\u0041":ENTRY}',
    "name control": '{"a\x01":ENTRY}',
    "name escaped NUL": '{"a\\u0000":ENTRY}',
    "name DEL": '{"a\x7f":ENTRY}',
    "name bad escape": '{"a\\x":ENTRY}',
    "name empty": '{"":ENTRY}',
    "name escaped": '{"\\u0061\\n\\/":ENTRY}',
    "single quotes": "{'a':ENTRY}",
    "not an object": "[]",
    "number": "7",
    "nothing": "",
    "cut": '{"a":{"dtype":"F32","sha',
}


@pytest.mark.parametrize("case", ODD_HEADERS)
def test_judges_odd_headers_as_the_official_reader_does(tmp_path: Path, case: str) -> None:
    content = file_bytes(ODD_HEADERS[case].replace("ENTRY", ENTRY), bytes(4))
    wanted = official(content)
    if wanted is None:
        with pytest.raises(CheckpointError, match=r"a\.safetensors"):
            ours(tmp_path / "a.safetensors", content)
    else:
        seen = ours(tmp_path / "a.safetensors", content)
        assert {n: e[:2] for n, e in seen.items()} == {n: e[:2] for n, e in wanted.items()}


# The official reader takes these; no writer makes them, and each is a way for two readers to disagree.
STRICTER = {
    "zero then overflow": (
        '{"b":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[4,4]},"a":ENTRY}',
        "impossible shape",
    ),
    "same name twice": ('{"a":ENTRY,"a":ENTRY}', "'a' twice"),
    "unknown field": (only(ENTRY.replace("}", ',"x":1}')), "dtype, shape"),
    "entry as array": ('{"a":["F32",[1],[0,4]]}', "expected '{'"),
    "escaped field name": (only(ENTRY.replace("dtype", "dt\\u0079pe")), "dtype, shape"),
    "rank 9": (only(ENTRY.replace("[1]", "[1,1,1,1,1,1,1,1,1]")), "at most 8"),
}


@pytest.mark.parametrize("case", STRICTER)
def test_is_stricter_than_the_official_reader(tmp_path: Path, case: str) -> None:
    header, reason = STRICTER[case]
    header = header.replace("ENTRY", ENTRY)
    assert official(file_bytes(header, bytes(4))) is not None
    with pytest.raises(CheckpointError, match=reason):
        ours(tmp_path / "a.safetensors", file_bytes(header, bytes(4)))


def test_names_the_remedy_for_a_pointer_and_a_short_download(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1746882752\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        SafetensorsFile(path)
    path.write_bytes(of_tensors({"x": ("F32", np.zeros(100, np.float32))})[:-1])
    with pytest.raises(CheckpointError, match="truncated: its tensors need 400 bytes and 399 are there; download"):
        SafetensorsFile(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="too short"):
        SafetensorsFile(path)


def test_a_file_that_shrinks_after_opening_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(of_tensors({"x": ("F32", np.zeros((64, 64), np.float32))}))
    file = SafetensorsFile(path)
    os.truncate(path, 1000)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: ends at byte 1000.*became shorter"):
        file.read("x", 0, 64)
    file.close()


def test_refuses_what_is_no_regular_file_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    for name in ("fifo", "folder", "loop", "missing", "nul\0"):
        with pytest.raises(CheckpointError, match=name.rstrip("\0")):
            SafetensorsFile(tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        SafetensorsFile(Path("/dev/zero"))


def test_follows_symbolic_links(tmp_path: Path) -> None:
    """A hub cache is links into a folder of blobs."""
    (tmp_path / "blob").write_bytes(of_tensors({"x": ("F32", np.ones(1, np.float32))}))
    (tmp_path / "a.safetensors").symlink_to("blob")
    file = SafetensorsFile(tmp_path / "a.safetensors")
    assert file.read("x", 0, 1).tolist() == [1]
    file.close()


def test_messages_from_hostile_names_are_printable_and_short(tmp_path: Path) -> None:
    entry = json.loads(ENTRY) | {"shape": [2]}
    with pytest.raises(CheckpointError) as caught:
        ours(tmp_path / "a.safetensors", file_bytes({"\x1b[2J\n" * 9999: entry}, bytes(4)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000
