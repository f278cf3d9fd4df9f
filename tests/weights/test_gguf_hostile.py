"""Hostile GGUF files: every one ends in our own error, soon and without taking memory, or reads as it should."""

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qwick.errors import CheckpointError, QwickError
from qwick.model.source import open_source
from qwick.text.chat_template import ChatTemplate
from qwick.text.tokenizer import Tokenizer
from qwick.weights.checkpoint import open_checkpoint
from qwick.weights.gguf import GgufFile
from tests.checkpoints import small_config
from tests.gguf_model import add_tokenizer, write_gguf
from tests.limits import in_memory, in_time
from tests.text.tokenizer_folder import make_backend

MIB = 1 << 20
STRING, ARRAY, U8, U32, BOOL = 8, 9, 0, 4, 7
U64_MAX = (1 << 64) - 1


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(name: bytes = b"t", dims: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def file_bytes(
    keys: list[bytes] = [],  # noqa: B006
    tensors: list[bytes] = [],  # noqa: B006
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    header = magic + struct.pack("<IQQ", version, *(counts or (len(tensors), len(keys)))) + b"".join(keys + tensors)
    return header + b"\0" * (-len(header) % 32) + data


IN_HEADER = "ends inside its header"
RIGHT = file_bytes([key(b"k", U32, struct.pack("<I", 5))], [tensor()], bytes(128))

HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too short for a GGUF file"),
    "magic": (file_bytes(magic=b"GGML"), "not a GGUF file"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "version 1": (file_bytes(version=1), "GGUF version 1; qwick reads 2 and 3"),
    "version 4": (file_bytes(version=4), "GGUF version 4"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "number of tensors": (file_bytes(counts=(U64_MAX, 0)), "no such model is known"),
    "number of keys": (file_bytes(counts=(0, U64_MAX)), "no such model is known"),
    "more tensors than there are": (file_bytes([], [tensor()], counts=(20_000, 0)), IN_HEADER),
    "more keys than there are": (file_bytes(counts=(0, 10_000)), "ends inside its header|twice"),
    "length of a key": (file_bytes([text(b"k", 1 << 40)]), "has 1099511627776 bytes, more than 65535"),
    "key not UTF-8": (file_bytes([key(b"\xff", U8, b"\0")]), "not UTF-8"),
    "key twice": (file_bytes([key(b"k", U8, b"\0")] * 2), "'k' is there twice"),
    "type of a value": (file_bytes([key(b"k", 13, b"")]), "unknown type 13"),
    "length of a text": (file_bytes([key(b"k", STRING, text(b"", U64_MAX))]), "more than 100000000"),
    "length of a text beyond the file": (file_bytes([key(b"k", STRING, text(b"", 9999))]), "ends inside its header"),
    "text not UTF-8": (file_bytes([key(b"k", STRING, text(b"\xc3"))]), "not UTF-8"),
    "flag": (file_bytes([key(b"k", BOOL, b"\2")]), "neither true nor false but 2"),
    "flags": (file_bytes([key(b"k", ARRAY, array(BOOL, 2, b"\1\3"))]), "holds 3 where true or false"),
    "array in an array": (file_bytes([key(b"k", ARRAY, array(ARRAY, 1, array(U8, 1, b"\0")))]), "array of arrays"),
    "type in an array": (file_bytes([key(b"k", ARRAY, array(99, 1))]), "unknown type 99"),
    "length of an array": (file_bytes([key(b"k", ARRAY, array(10, U64_MAX))]), "ends inside its header"),
    "length of an array beyond the file": (file_bytes([key(b"k", ARRAY, array(U8, 1 << 40))]), IN_HEADER),
    "number of strings": (file_bytes([key(b"k", ARRAY, array(STRING, U64_MAX))]), "no model has so many"),
    "number of strings in all": (
        file_bytes([key(b"a", ARRAY, array(STRING, 9, bytes(72))), key(b"b", ARRAY, array(STRING, (1 << 22) - 8))]),
        "no model has so many",
    ),
    "number of strings beyond the file": (file_bytes([key(b"k", ARRAY, array(STRING, 9999))]), IN_HEADER),
    "length of a string": (
        file_bytes([key(b"k", ARRAY, array(STRING, 2, text(b"", U64_MAX) + text(b"")))]),
        "ends inside its header",
    ),
    "length of the last string": (
        file_bytes([key(b"k", ARRAY, array(STRING, 2, text(b"") + text(b"", U64_MAX)))]),
        "ends inside its header",
    ),
    "lengths that add up to no number": (
        file_bytes([key(b"k", ARRAY, array(STRING, 2, text(b"", U64_MAX - 7) + text(b"")))]),
        "ends inside its header",
    ),
    "length of one of many strings": (
        file_bytes([key(b"k", ARRAY, array(STRING, 99, text(b"ab") * 70 + text(b"ab", U64_MAX) + text(b"ab") * 28))]),
        IN_HEADER,
    ),
    "length of the last of many strings": (
        file_bytes([key(b"k", ARRAY, array(STRING, 99, text(b"ab") * 98 + text(b"ab", U64_MAX - 3)))]),
        IN_HEADER,
    ),
    "a few of many strings too many": (file_bytes([key(b"k", ARRAY, array(STRING, 99, text(b"ab") * 90))]), IN_HEADER),
    "name of a tensor": (file_bytes([], [text(b"", 1 << 40)]), "more than 4096"),
    "tensor twice": (file_bytes([], [tensor(), tensor(offset=128)], bytes(256)), "names 't' twice"),
    "dimensions": (file_bytes([], [tensor(dims=(1,) * 5)], bytes(32)), "5 dimensions"),
    "billions of dimensions": (file_bytes([], [text(b"t") + struct.pack("<I", 1 << 31)]), "2147483648 dimensions"),
    "shape": (file_bytes([], [tensor(dims=(U64_MAX, 2))], bytes(32)), "impossible shape"),
    "shape that wraps around": (file_bytes([], [tensor(dims=(1 << 32, 1 << 32))], bytes(32)), "impossible shape"),
    "empty but impossible": (file_bytes([], [tensor(dims=(0, 1 << 62))], bytes(32)), "impossible shape"),
    "type of a tensor": (file_bytes([], [tensor(kind=4)], bytes(128)), "has type 4, which qwick does not know"),
    "half a block": (file_bytes([], [tensor(dims=(16, 2), kind=2)], bytes(128)), "no whole Q4_0 blocks"),
    "unaligned": (file_bytes([], [tensor(offset=8)], bytes(256)), "not aligned to 32"),
    "beyond the end": (file_bytes([], [tensor(offset=1 << 40)], bytes(256)), "truncated"),
    "last offset": (file_bytes([], [tensor(offset=U64_MAX - 31)], bytes(256)), "truncated"),
    "truncated": (file_bytes([], [tensor()], bytes(127)), "truncated: its tensors need"),
    "overlap": (file_bytes([], [tensor(b"a", (64,)), tensor(b"b", offset=128)], bytes(256)), "'a' and 'b' overlap"),
    "same place": (file_bytes([], [tensor(b"a"), tensor(b"b")], bytes(256)), "overlap"),
    "alignment 0": (file_bytes([key(b"general.alignment", U32, struct.pack("<I", 0))]), "general.alignment is 0"),
    "alignment 24": (file_bytes([key(b"general.alignment", U32, struct.pack("<I", 24))]), "general.alignment is 24"),
    "alignment a text": (file_bytes([key(b"general.alignment", STRING, text(b"32"))]), "general.alignment is '32'"),
    "parts": (file_bytes([key(b"split.count", STRING, text(b"x"))]), "split.count is 'x', not a whole number"),
    "billions of parts": (file_bytes([key(b"split.count", U32, b"\xff" * 4)]), "one of 4294967295 parts"),
}  # fmt: skip


def test_the_right_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(RIGHT)
    file = GgufFile(tmp_path / "a.gguf")
    assert file.metadata["k"] == 5
    assert file.read("t", 0, 32).tolist() == [0] * 32


@pytest.mark.parametrize("name", HOSTILE)
def test_a_lie_is_our_error_in_no_time(tmp_path: Path, name: str) -> None:
    content, reason = HOSTILE[name]
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with in_time(), in_memory(len(content) * 3 + 4 * MIB), pytest.raises(CheckpointError, match=reason):
        open_checkpoint(path)


def test_a_hundred_megabytes_of_strings_are_soon_too_many(tmp_path: Path) -> None:
    """The longest header there may be, all of it in strings of one byte."""
    count = (1 << 22) - 1
    content = file_bytes([key(b"k", ARRAY, array(STRING, count, text(b"x") * count))])
    (tmp_path / "a.gguf").write_bytes(content)
    with in_time():
        assert len(GgufFile(tmp_path / "a.gguf").metadata["k"]) == count  # type: ignore[arg-type]
    (tmp_path / "a.gguf").write_bytes(content.replace(text(b"k"), text(b"k", 65_535), 1) + bytes(100 * MIB))
    with in_time(), pytest.raises(CheckpointError):
        GgufFile(tmp_path / "a.gguf")


def test_strings_that_are_no_text_are_our_error_when_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(file_bytes([key(b"k", ARRAY, array(STRING, 2, text(b"\xff") + text(b"a")))]))
    strings: Any = GgufFile(tmp_path / "a.gguf").metadata["k"]
    for read in (lambda: strings[0], strings.decoded):
        with pytest.raises(CheckpointError, match=r"a\.gguf: k holds .* not UTF-8"):
            read()
    assert strings[1] == "a"


def test_a_fifo_and_a_folder_are_no_files(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.gguf")
    with pytest.raises(CheckpointError, match="not a regular file"):
        open_checkpoint(tmp_path / "a.gguf")


# --- whole models ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model with everything: tokenizer, template, blocks, an MTP block."""
    import json

    raw = json.loads(make_backend().to_str())

    def metadata(writer: gguf.GGUFWriter) -> None:
        add_tokenizer(writer, raw, 512)
        writer.add_chat_template("{{ messages }}")

    path = tmp_path_factory.mktemp("hostile") / "model.gguf"
    return write_gguf(path, small_config(), 1, metadata=metadata).read_bytes()


def use(path: Path) -> None:
    """All that opening a model reads, and every tensor."""
    with open_source(path) as source:
        ChatTemplate.open(path, source.metadata, is_own=True)
        Tokenizer.open(path, source.metadata).encode("hello <|im_end|>", allow_special=True)
        for spec in source.specs:
            _ = [*source.windows(spec)] if spec.matrix else source.vector(spec)


def header_bytes(model: bytes, tmp_path: Path) -> int:
    (tmp_path / "whole.gguf").write_bytes(model)
    return gguf.GGUFReader(tmp_path / "whole.gguf").data_offset


def test_truncated_at_every_hundredth(model: bytes, tmp_path: Path) -> None:
    path, whole = tmp_path / "a.gguf", len(model)
    places = {whole * i // 100 for i in range(100)} | {header_bytes(model, tmp_path) * i // 100 for i in range(100)}
    for place in sorted(places):
        path.write_bytes(model[:place])
        with in_time(), pytest.raises(CheckpointError, match=r"too short|ends inside|truncated"):
            use(path)
    path.write_bytes(model)
    use(path)


def test_flipped_bytes_of_the_header_are_our_error_or_harmless(model: bytes, tmp_path: Path) -> None:
    """Bits of lengths, counts, types and names; never another exception, never a long wait."""
    stream, path, size = random.Random(1), tmp_path / "a.gguf", header_bytes(model, tmp_path)
    refused = 0
    for _ in range(400):
        content = bytearray(model)
        for _ in range(stream.choice([1, 1, 1, 3])):
            place = stream.randrange(size)
            content[place] = stream.choice([0, 255, content[place] ^ (1 << stream.randrange(8)), stream.randrange(256)])
        path.write_bytes(content)
        with in_time():
            try:
                use(path)
            except QwickError:
                refused += 1
    assert refused > 40


shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = st.one_of(st.integers(0, 40), st.sampled_from([2**31, 2**32 - 1, 2**60, 2**63, U64_MAX]))
names = st.sampled_from([b"", b"k", b"t", b"general.alignment", b"split.count", b"\xff", b"\0"])
elements = st.binary(max_size=40)
arrays = st.builds(array, st.integers(0, 14), numbers, elements)
entries = st.builds(key, names, st.integers(0, 14), st.one_of(elements, arrays, st.builds(text, elements, numbers)))
tensors = st.builds(tensor, names, st.lists(numbers, max_size=6).map(tuple), st.integers(0, 45), numbers)


@shared_folder
@given(
    st.lists(entries, max_size=4),
    st.lists(tensors, max_size=4),
    st.binary(max_size=200),
    st.one_of(st.none(), st.tuples(numbers, numbers)),
)
@example([key(b"k", ARRAY, array(STRING, 1, text(b"", U64_MAX)))], [], b"", None)
@example([], [tensor(b"", (0,), 2, 0)], b"", None)
def test_what_is_accepted_lies_in_the_file(
    tmp_path: Path, keys: list[bytes], listed: list[bytes], data: bytes, counts: tuple[int, int] | None
) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(file_bytes(keys, listed, data, counts=counts))
    with in_time():
        try:
            file = GgufFile(path)
        except CheckpointError:
            return
        read: Callable[..., Any] = file.read
        for name, info in file.tensors.items():
            rows = info.shape[0] if info.shape else 1
            try:
                with np.errstate(all="ignore"):
                    values = read(name, 0, rows)
            except CheckpointError:
                continue
            assert info.num_bytes <= path.stat().st_size
            assert len(values) == rows
        file.close()
