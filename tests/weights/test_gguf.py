"""GGUF files as gguf-py writes them read the same here as there: keys, tensors, windows; split models too."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qwick.errors import CheckpointError, KernelError
from qwick.formats import FORMATS
from qwick.ops import native
from qwick.weights.checkpoint import open_checkpoint
from qwick.weights.files import RegularFile
from qwick.weights.gguf import GgufFile
from qwick.weights.gguf_header import Strings, read_header
from qwick.weights.gguf_types import DECODED, TYPES, decode

shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS: dict[str, tuple[gguf.GGUFValueType, st.SearchStrategy[Any]]] = {
    kind.name: (kind, st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1))
    for bits in (8, 16, 32, 64)
    for signed in (True, False)
    for kind in [gguf.GGUFValueType[f"{'' if signed else 'U'}INT{bits}"]]
} | {
    "FLOAT32": (gguf.GGUFValueType.FLOAT32, st.floats(width=32, allow_nan=False)),
    "FLOAT64": (gguf.GGUFValueType.FLOAT64, st.floats(allow_nan=False)),
    "BOOL": (gguf.GGUFValueType.BOOL, st.booleans()),
}
texts = st.text(st.characters(codec="utf-8"), max_size=12)


@st.composite
def values(draw: st.DrawFn) -> tuple[gguf.GGUFValueType, Any, gguf.GGUFValueType | None]:
    """(type, value, type of the elements)"""
    name = draw(st.sampled_from([*NUMBERS, "STRING"]))
    kind, numbers = (gguf.GGUFValueType.STRING, texts) if name == "STRING" else NUMBERS[name]
    if draw(st.booleans()):
        return kind, draw(numbers), None
    return gguf.GGUFValueType.ARRAY, draw(st.lists(numbers, min_size=1, max_size=5)), kind


@shared_folder
@given(st.dictionaries(st.text("abc._", min_size=1, max_size=8), values(), max_size=6))
def test_keys_are_read_as_they_were_written(tmp_path: Path, wanted: dict[str, Any]) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "x")
    for key, (kind, value, element) in wanted.items():
        writer.add_key_value(key, value, kind, element)
    finish(writer)
    file = GgufFile(tmp_path / "a.gguf")
    assert list(file.metadata) == ["general.architecture", *wanted]
    for key, (_, value, _) in wanted.items():
        ours = file.metadata[key]
        if isinstance(value, list):
            assert list(ours) == value
            assert len(ours) == len(value)
        else:
            assert ours == value
            assert type(ours) is type(value)
    file.close()


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=4)), st.data())
def test_strings_are_a_sequence(written: list[str], data: st.DataObject) -> None:
    blob, ends = b"", []
    for text in written:
        blob += len(text.encode()).to_bytes(8, "little") + text.encode()
        ends.append(len(blob))
    strings = Strings("here", blob, np.array(ends, np.uint64))
    assert len(strings) == len(written)
    assert list(strings) == strings.decoded() == written
    begin, end = data.draw(st.integers(-6, 6)), data.draw(st.integers(-6, 6))
    assert strings[begin:end] == written[begin:end]
    for i in range(-len(written), len(written)):
        assert strings[i] == written[i]
    for i in (len(written), -len(written) - 1):
        with pytest.raises(IndexError):
            strings[i]


@settings(shared_folder, max_examples=60)
@given(
    kinds=st.sets(st.sampled_from(["short", "empty", "long", "longer", "zeros", "newlines", "wide"]), min_size=1),
    count=st.sampled_from([65, 100, 3000]),
    seed=st.integers(0, 99),
)
def test_many_strings_of_any_length(tmp_path: Path, kinds: set[str], count: int, seed: int) -> None:
    """They are found all at once, or one by one where that is not possible: the same."""
    stream = np.random.default_rng(seed)
    texts = {"empty": "", "longer": "x" * 70_000, "zeros": "\0" * 9, "newlines": "a\nb", "wide": "Ġ" * 128}
    texts |= {"short": "token", "long": "y" * 256}
    chances = [1 if kind in ("longer", "long") else 20 for kind in sorted(kinds)]
    picked = stream.choice(sorted(kinds), count, p=np.array(chances) / sum(chances))
    written = [texts[kind] + str(i) * (kind not in ("empty", "long")) for i, kind in enumerate(picked)]
    if sum(map(len, written)) > 4_000_000:
        written = [text[:300] for text in written]
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "x")
    writer.add_array("k", written)
    writer.add_string("after", "the end")
    finish(writer)
    file = GgufFile(tmp_path / "a.gguf")
    strings: Any = file.metadata["k"]
    assert strings.decoded() == written
    assert [strings[0], strings[count // 2], strings[-1]] == [written[0], written[count // 2], written[-1]]
    assert file.metadata["after"] == "the end"
    file.close()


def raw_blocks(kind: Type, shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    """Random bits as gguf-py takes them: values of plain types, bytes of the others."""
    stream = np.random.default_rng(seed)
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    row_bytes = shape[-1] // block_len * block_bytes
    raw = np.frombuffer(stream.bytes(int(np.prod(shape[:-1])) * row_bytes), np.uint8)
    plain = {Type.F32: np.float32, Type.F16: np.float16, Type.F64: np.float64, Type.I32: np.int32}
    return raw.view(plain[kind]).reshape(shape) if kind in plain else raw.reshape(*shape[:-1], row_bytes)


@pytest.mark.parametrize("alignment", [32, 64, 1024])
def test_every_type_is_read_bit_for_bit_in_any_windows(tmp_path: Path, alignment: int) -> None:
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "x")
    writer.add_custom_alignment(alignment)
    kinds = [Type[stored.name] for stored in TYPES.values() if stored.name in Type.__members__]
    assert len(kinds) >= len(FORMATS) + 17
    kinds = [kind for kind in kinds if kind != Type.Q8_1]  # whose size gguf-py has wrong, like ggml files' never
    for i, kind in enumerate(kinds):
        data = raw_blocks(kind, (7, 256), i)
        writer.add_tensor(kind.name.lower(), data, raw_dtype=None if data.dtype != np.uint8 else kind)
    finish(writer)
    file, official = GgufFile(path), gguf.GGUFReader(path)
    assert list(file.tensors) == [t.name for t in official.tensors]
    for tensor in official.tensors:
        info, kind = file.tensors[tensor.name], Type(tensor.tensor_type)
        assert (info.dtype, info.shape, info.num_bytes) == (kind.name, (7, 256), tensor.n_bytes)
        if info.dtype in DECODED or info.dtype in {"I8", "I16", "I32", "I64", "Q8_K"}:
            continue
        read = np.concatenate([file.read(tensor.name, i, j) for i, j in ((0, 2), (2, 2), (2, 7))])
        assert read.tobytes() == tensor.data.tobytes()
        plain = {Type.F32: np.float32, Type.F16: np.float16, Type.BF16: np.uint16}
        assert read.dtype == plain.get(kind, np.uint8)
        assert len(read) == 7
    with pytest.raises(CheckpointError, match="'i32' is stored as I32, which no weights are"):
        file.read("i32", 0, 1)
    with pytest.raises(ValueError, match="which has 7"):
        file.read("q4_0", 0, 8)
    with pytest.raises(KeyError):
        file.read("none", 0, 1)


@pytest.mark.parametrize("name", sorted(DECODED - {"Q1_0", "Q2_0"}))
def test_types_without_a_kernel_are_decoded_as_gguf_py_does(tmp_path: Path, name: str) -> None:
    kind = Type[name]
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "x")
    data = raw_blocks(kind, (5, 512), 3)
    for tensor, rows in (("matrix", data), ("vector", data[0])):
        writer.add_tensor(tensor, rows, raw_dtype=None if data.dtype != np.uint8 else kind)
    finish(writer)
    file = GgufFile(tmp_path / "a.gguf")
    with np.errstate(all="ignore"):
        wanted = data.astype(np.float32) if kind == Type.F64 else gguf.quants.dequantize(data, kind)
        ours = file.read("matrix", 1, 4)
        assert ours.dtype == np.float32
        assert ours.tobytes() == wanted[1:4].tobytes()
        assert file.read("vector", 0, 512).tobytes() == wanted[0].tobytes()


@pytest.mark.parametrize(("name", "num_bits", "values"), [("Q1_0", 1, [-1, 1]), ("Q2_0", 2, [-1, 0, 1, 2])])
def test_the_types_of_one_and_two_bits(name: str, num_bits: int, values: list[int]) -> None:
    """llama.cpp `ggml-quants.c`, `dequantize_row_q1_0` and `_q2_0`, value by value."""
    (kind,) = (stored for stored in TYPES.values() if stored.name == name)
    raw = np.random.default_rng(1).integers(0, 256, (3, 2 * kind.block_bytes), np.uint8)
    raw[:, [1, kind.block_bytes + 1]] &= 0x3B  # finite scales
    ours = decode(kind, raw)
    assert ours.shape == (3, 2 * kind.block_len)
    for row, block, i in np.ndindex(3, 2, kind.block_len):
        bits = raw[row, block * kind.block_bytes :][: kind.block_bytes]
        at = i * num_bits
        number = bits[2 + at // 8] >> (at % 8) & (2**num_bits - 1)
        wanted = np.float32(bits[:2].copy().view(np.float16)[0]) * values[number]
        assert ours[row, block * kind.block_len + i] == wanted


def test_a_type_that_the_package_cannot_decode_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "x")
    writer.add_tensor("t", raw_blocks(Type.IQ3_S, (1, 256), 0), raw_dtype=Type.IQ3_S)
    finish(writer)

    def fail(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(gguf.quants, "dequantize", fail)
    with pytest.raises(CheckpointError, match=r"'t' is stored as IQ3_S.*pip install -U gguf"):
        GgufFile(tmp_path / "a.gguf").read("t", 0, 1)


def test_vectors_of_blocks_come_decoded(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "x")
    writer.add_tensor("t", gguf.quants.quantize(values, Type.Q8_0), raw_dtype=Type.Q8_0)
    finish(writer)
    wanted = gguf.quants.dequantize(gguf.quants.quantize(values, Type.Q8_0), Type.Q8_0)
    assert np.array_equal(GgufFile(tmp_path / "a.gguf").read("t", 0, 64), wanted)


def test_the_vocabulary_stays_bytes_until_it_is_asked_for(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "x")
    writer.add_token_list([f"token {i}" for i in range(100_000)])
    finish(writer)
    file = RegularFile(tmp_path / "a.gguf")
    tokens = read_header(file).metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, Strings)
    assert tokens[99_999] == "token 99999"
    file.close()


def test_version_2_is_the_same_layout(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "x")
    writer.add_tensor("t", np.arange(4, dtype=np.float32))
    finish(writer)
    raw = bytearray((tmp_path / "a.gguf").read_bytes())
    raw[4] = 2
    (tmp_path / "a.gguf").write_bytes(raw)
    assert GgufFile(tmp_path / "a.gguf").read("t", 0, 4).tolist() == [0, 1, 2, 3]


def test_a_file_without_tensors_may_end_before_its_padding(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "x")
    writer.add_string("k", "v")
    finish(writer)
    raw = (tmp_path / "a.gguf").read_bytes().rstrip(b"\0")
    (tmp_path / "a.gguf").write_bytes(raw)
    assert GgufFile(tmp_path / "a.gguf").metadata["k"] == "v"


# --- split models ----------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Three parts as gguf-py splits them."""
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "x", split_max_tensors=3)
    writer.add_string("key", "value")
    for i in range(7):
        writer.add_tensor(f"t{i}", np.full((2, 32), i, np.float32))
    finish(writer)
    found = sorted(tmp_path.glob("*.gguf"))
    assert [path.name for path in found] == [f"model-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    return found


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_part_opens_the_whole_model(parts: list[Path], which: int) -> None:
    with open_checkpoint(parts[which]) as checkpoint:
        assert checkpoint.metadata["key"] == "value"
        assert sorted(checkpoint.tensors) == [f"t{i}" for i in range(7)]
        assert all((checkpoint.read(f"t{i}", 0, 2) == i).all() for i in range(7))


def test_names_the_parts_that_are_missing(parts: list[Path]) -> None:
    parts[0].unlink()
    parts[2].unlink()
    with pytest.raises(CheckpointError, match=r"missing: model-00001-of-00003\.gguf, model-00003-of-00003\.gguf;"):
        open_checkpoint(parts[1])


def test_a_part_under_another_name_is_refused(parts: list[Path]) -> None:
    with pytest.raises(CheckpointError, match=r"one of 3 parts, so it should be called like `name-00001-of-00003"):
        open_checkpoint(parts[0].rename(parts[0].with_name("renamed.gguf")))


def test_parts_that_are_swapped_or_of_another_model_are_refused(parts: list[Path]) -> None:
    content = [path.read_bytes() for path in parts]
    parts[1].write_bytes(content[2])
    parts[2].write_bytes(content[1])
    with pytest.raises(CheckpointError, match="says that it is not part 2 of 3"):
        open_checkpoint(parts[0])
    parts[1].write_bytes(content[1])
    parts[2].write_bytes(content[1])
    with pytest.raises(CheckpointError, match="says that it is not part 3 of 3"):
        open_checkpoint(parts[0])


def test_a_store_may_name_files_by_their_hash(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "x")
    writer.add_tensor("t", np.zeros(4, np.float32))
    finish(writer)
    path = (tmp_path / "a.gguf").rename(tmp_path / "sha256-0123abcd")
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["t"]


@given(st.lists(st.binary(max_size=5)), st.integers(1, 40))
def test_ends_of_strings_are_found_however_the_data_arrives(written: list[bytes], step: int) -> None:
    """Piece by piece, as a header is read; a length beyond any file stands for itself."""
    blob = b"".join(len(text).to_bytes(8, "little") + text for text in written) + b"behind"
    wanted = np.cumsum([8 + len(text) for text in written]).astype(np.uint64)
    ends, done, have = np.empty(len(written), np.uint64), 0, 0
    while done < len(written):
        have += step
        done = native.scan_strings(np.frombuffer(blob[:have], np.uint8), ends, done)
    np.testing.assert_array_equal(ends, wanted)


def test_lengths_that_lie_lead_nowhere() -> None:
    blob = np.frombuffer((2**64 - 1).to_bytes(8, "little") + b"abc", np.uint8)
    ends = np.zeros(3, np.uint64)
    assert native.scan_strings(blob, ends, 0) == 1
    assert ends[0] >= 2**62
    for read in (native.strings, native.string_pairs):
        with pytest.raises(KernelError):
            read(blob, ends[:1])
    with pytest.raises(KernelError):
        native.scan_strings(blob, ends, 4)


def test_merges_are_pairs_or_none() -> None:
    texts = ["a b", "ab", "a b c", " ", "é ü", ""]
    blob = b"".join(len(t.encode()).to_bytes(8, "little") + t.encode() for t in texts)
    ends = np.cumsum([8 + len(t.encode()) for t in texts]).astype(np.uint64)
    assert Strings("here", blob, ends).pairs() == [("a", "b"), None, None, ("", ""), ("é", "ü"), None]
    bad = Strings("here", (3).to_bytes(8, "little") + b"\xff a", np.array([11], np.uint64))
    with pytest.raises(CheckpointError, match="here holds"):
        bad.pairs()
