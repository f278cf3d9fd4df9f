"""Packed weights on disk: what is read is what was written, or nothing; no crash, rival or full disk spoils a start."""

import errno
import fcntl
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwick.errors import KernelError, StateWarning, UsageError
from qwick.formats import FILE_DTYPES, Q8_0, format_named
from qwick.model.model import open_model
from qwick.model.packed import identity_of
from qwick.model.source import open_source
from qwick.ops.native import LAYOUT_VERSION, PACKED_PIECE_BYTES, NativeBackend, encode, packed_sums
from qwick.weights import pack_cache
from qwick.weights.pack_cache import pack_path, packs_folder, write_pack
from qwick.weights.pack_file import MAGIC, Content, Identity, Pack
from tests.small_model import write_small_model

ROOT = Path(__file__).parents[2]
IDENTITY = Identity((("/model", 1, 2, 3, 4),), "digest", None, 1, "0")
CONTENT = {"w": Content("i8", (1, 32), memoryview(b"abc"), [1])}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWICK_PACKS", str(tmp_path / "packs"))
    return tmp_path / "packs"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


def memory(path: Path, *, format: str | None = "q8_0", pack_cache: bool = True) -> dict[str, bytes]:
    """All weights of the opened model, as they lie in memory."""
    with open_source(path) as source:
        model = open_model(source, format=format_named(format) if format else None, threads=2, pack_cache=pack_cache)
        return {spec.name: model.weight(spec.name).view().tobytes() for spec in source.specs}


def only_pack(folder: Path) -> Path:
    (path,) = folder.iterdir()
    assert path.suffix == ".pack"
    return path


class Opens:
    """Whether a pack was read, by what was read of the model's own files."""

    def __init__(self, path: Path) -> None:
        before = {entry.path: entry.path.stat().st_ino for entry in pack_cache.packs()}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.memory = memory(path)
        self.warnings = [str(warning.message) for warning in caught if warning.category is StateWarning]
        self.wrote = before != {entry.path: entry.path.stat().st_ino for entry in pack_cache.packs()}


def test_a_pack_gives_the_same_memory_and_is_not_written_again(model_folder: Path, folder: Path) -> None:
    plain = memory(model_folder, pack_cache=False)
    assert not folder.exists()
    first, second = Opens(model_folder), Opens(model_folder)
    assert (first.memory, first.wrote, first.warnings) == (plain, True, [])
    assert (second.memory, second.wrote, second.warnings) == (plain, False, [])
    assert only_pack(folder).stat().st_mode & 0o777 == 0o600


def test_the_weights_come_from_the_pack(model_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Opens(model_folder)
    monkeypatch.delattr(NativeBackend, "add_matrix")
    assert not Opens(model_folder).wrote


def test_each_format_has_a_pack_of_its_own(model_folder: Path, folder: Path) -> None:
    for format in ("q8_0", "q4_0", None):
        memory(model_folder, format=format)
    assert len(list(folder.iterdir())) == 3
    assert {entry.format for entry in pack_cache.packs()} == {"q8_0", "q4_0", None}


def test_any_flipped_byte_is_noticed_and_mended(model_folder: Path, folder: Path) -> None:
    plain = Opens(model_folder).memory
    path = only_pack(folder)
    whole = path.read_bytes()
    with Pack(path) as pack:
        starts = [place.offset for place in pack.tensors.values()]
        ends = [place.offset + place.num_bytes - 1 for place in pack.tensors.values()]
    for at in [0, 7, 8, 15, 16, 31, 32, 40, 500, *starts[::5], *ends[::5], len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = Opens(model_folder)
        assert found.memory == plain, at
        assert found.wrote, at
        assert len(found.warnings) == 1, at
        assert "ignored and made anew" in found.warnings[0]
        assert path.read_bytes() == whole


def test_any_cut_is_noticed_and_mended(model_folder: Path, folder: Path) -> None:
    plain = Opens(model_folder).memory
    path = only_pack(folder)
    whole = path.read_bytes()
    for length in (0, 1, 8, 31, 32, 33, 1000, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        path.write_bytes(whole[:length])
        found = Opens(model_folder)
        assert (found.memory, found.wrote, len(found.warnings)) == (plain, True, 1), length
    path.write_bytes(whole + b"\0")
    assert Opens(model_folder).warnings


def rewritten(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """The header changed, with its checksum made good: what an enemy or a mistake of ours could do."""
    data = path.read_bytes()
    length = int.from_bytes(data[8:16], "little")
    header = json.loads(data[32 : 32 + length])
    text = json.dumps(change(header) or header).encode()
    digest = hashlib.blake2b(text, digest_size=16).digest()
    start = MAGIC + len(text).to_bytes(8, "little") + digest + text
    old_start, new_start = (-(-n // 4096) * 4096 for n in (32 + length, len(start)))
    path.write_bytes(start.ljust(new_start, b"\0") + data[old_start:])


def entry_of(header: dict[str, object], index: int) -> list[object]:
    tensors = header["tensors"]
    assert isinstance(tensors, dict)
    return list(tensors.values())[index]


def drop(header: dict[str, object]) -> None:
    tensors = header["tensors"]
    assert isinstance(tensors, dict)
    tensors.popitem()


HEADERS: dict[str, Callable[[dict[str, object]], object]] = {
    "no object": lambda header: [1],
    "no tensors": lambda header: header.pop("tensors") and None,
    "tensors as a list": lambda header: header.update(tensors=[1]),
    "one tensor fewer": drop,
    "another family": lambda header: entry_of(header, 0).__setitem__(0, "f32"),
    "no family": lambda header: entry_of(header, 0).__setitem__(0, 3),
    "another shape": lambda header: entry_of(header, 1).__setitem__(1, [16, 32]),
    "an offset outside": lambda header: entry_of(header, 1).__setitem__(2, 1 << 60),
    "a negative offset": lambda header: entry_of(header, 1).__setitem__(2, -4096),
    "an offset in another tensor": lambda header: entry_of(header, 2).__setitem__(2, 0),
    "fewer bytes": lambda header: entry_of(header, -1).__setitem__(3, 64),
    "more bytes": lambda header: entry_of(header, -1).__setitem__(3, 1 << 40),
    "no checksums": lambda header: entry_of(header, 0).__setitem__(4, ""),
    "checksums of other data": lambda header: entry_of(header, 0).__setitem__(4, "00" * 8),
    "checksums that are none": lambda header: entry_of(header, 0).__setitem__(4, "xy"),
    "too few fields": lambda header: entry_of(header, 0).pop(),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_not_believed(model_folder: Path, folder: Path, name: str) -> None:
    plain = Opens(model_folder).memory
    rewritten(only_pack(folder), HEADERS[name])
    found = Opens(model_folder)
    assert (found.memory, found.wrote, len(found.warnings)) == (plain, True, 1)
    assert not Opens(model_folder).wrote


SENSELESS: list[tuple[str, int | str, object]] = [
    *(("tensors", at, 10**400) for at in (1, 2, 3)),
    *(("identity", key, None) for key in ("files", "tensors", "layout", "version")),
    *(("identity", "files", files) for files in ([], "abcde", [["a", 1, 2, 3]], [[1, 1, 2, 3, 4]])),
    ("identity", "files", [["a", "b", 2, 3, 4]]),
    *(("identity", key, value) for key, value in (("format", 0), ("tensors", []), ("layout", "1"), ("version", 1))),
    *(("identity", key, ...) for key in ("files", "tensors", "format", "layout", "version")),
]  # fmt: skip


@pytest.mark.parametrize(("part", "key", "value"), SENSELESS)
def test_a_header_without_sense_can_be_shown_and_cleared(
    folder: Path, part: str, key: int | str, value: object
) -> None:
    def change(header: dict[str, Any]) -> None:
        found = header[part] if part == "identity" else header[part]["w"]
        if value is ...:
            del found[key]
        else:
            found[key] = [value, 32] if (part, key) == ("tensors", 1) else value

    assert write_pack(IDENTITY, CONTENT)
    rewritten(only_pack(folder), change)
    with pytest.warns(StateWarning, match="the header makes no sense"):
        assert pack_cache.open_pack(IDENTITY) is None
    (entry,) = pack_cache.packs()
    assert (entry.model, entry.num_bytes) == (None, entry.path.stat().st_size)
    assert pack_cache.clear() == [(entry.path, entry.num_bytes)]


def test_a_changed_model_is_read_anew(tmp_path: Path, folder: Path) -> None:
    model = write_small_model(tmp_path / "model")
    first = Opens(model).memory
    weights = model / "model.safetensors"
    status, data = weights.stat(), bytearray(weights.read_bytes())
    data[-64:] = bytes(64)
    weights.write_bytes(data)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))  # as copying programs do
    found = Opens(model)
    assert found.wrote
    assert found.memory == memory(model, pack_cache=False) != first
    assert len(list(folder.iterdir())) == 1  # the old one is replaced


def test_another_version_or_layout_is_another_identity(model_folder: Path) -> None:
    with open_source(model_folder) as source:
        identity = identity_of(source, Q8_0)
    write_pack(identity, CONTENT)
    same = pack_cache.open_pack(identity)
    assert same is not None
    with same:
        assert same.tensors["w"].num_bytes == 3
    for other in (
        replace(identity, layout=2),
        replace(identity, tensors="other"),
        replace(identity, version="9"),
        replace(identity, files=(*identity.files, ("x", 1, 2, 3, 4))),
    ):
        assert pack_cache.open_pack(other) is None


WRITE_SLOWLY = """
import sys
from qwick.weights.pack_cache import write_pack
from qwick.weights.pack_file import Content
from tests.weights.test_pack_cache import CONTENT, IDENTITY

class Slow(dict[str, Content]):
    def __getitem__(self, name):
        print("writing", flush=True)
        sys.stdin.read()  # until it is killed

write_pack(IDENTITY, Slow(CONTENT))
"""


@pytest.fixture
def writer(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, amid writing."""
    command = [sys.executable, "-c", WRITE_SLOWLY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"writing\n"
            yield process
        finally:
            process.kill()


def test_a_process_killed_while_it_writes_leaves_nothing_that_counts(
    folder: Path, writer: "subprocess.Popen[bytes]"
) -> None:
    assert pack_cache.open_pack(IDENTITY) is None  # not seen before it is whole
    assert not write_pack(IDENTITY, CONTENT)  # another process is about it
    writer.kill()
    writer.wait()
    (left,) = folder.iterdir()
    assert left.suffix == ".part"
    assert [entry.model for entry in pack_cache.packs()] == [None]
    assert write_pack(IDENTITY, CONTENT)
    assert only_pack(folder).exists()


def test_what_is_being_written_is_not_cleared(folder: Path, writer: "subprocess.Popen[bytes]") -> None:
    assert pack_cache.clear() == []
    (part,) = folder.iterdir()
    writer.kill()
    writer.wait()
    assert [path for path, _ in pack_cache.clear()] == [part]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_deleted_while_it_is_written_is_not_mistaken_for_a_rival_s(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    sync = os.fsync

    def rival_begins(fd: int) -> None:
        (part,) = folder.iterdir()
        part.unlink()
        part.write_bytes(b"half")
        if fails:
            raise OSError(errno.EIO, "broken")
        sync(fd)

    monkeypatch.setattr(os, "fsync", rival_begins)
    if fails:
        with pytest.warns(StateWarning, match="broken"):
            assert not write_pack(IDENTITY, CONTENT)
    else:
        assert not write_pack(IDENTITY, CONTENT)
    (part,) = folder.iterdir()
    assert (part.suffix, part.read_bytes()) == (".part", b"half")


def test_who_opened_the_name_before_it_was_renamed_does_not_spoil_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def rival_finishes_first(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        assert write_pack(IDENTITY, CONTENT)
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", rival_finishes_first)
    assert not write_pack(IDENTITY, {"w": replace(CONTENT["w"], data=memoryview(b"other"))})
    with Pack(only_pack(folder)) as pack:
        assert pack.tensors["w"].num_bytes == 3


def test_two_processes_may_open_at_once(model_folder: Path, folder: Path) -> None:
    script = """
import sys
from pathlib import Path
from qwick.formats import Q8_0
from qwick.model.model import open_model
open_model(Path(sys.argv[1]), format=Q8_0, threads=1, pack_cache=True)
"""
    runs = [
        subprocess.Popen([sys.executable, "-c", script, str(model_folder)], stderr=subprocess.PIPE) for _ in range(3)
    ]
    for run in runs:
        _, error = run.communicate()
        assert (run.returncode, error) == (0, b"")
    assert Opens(model_folder).memory == memory(model_folder, pack_cache=False)
    assert only_pack(folder).exists()


@pytest.mark.parametrize("limit", [100, 50_000])
def test_a_full_disk_is_a_warning(model_folder: Path, folder: Path, limit: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # as ENOSPC: a write that ends early, then one that fails
    try:
        found = Opens(model_folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found.memory == memory(model_folder, pack_cache=False)
    assert [os.strerror(errno.EFBIG) in text for text in found.warnings] == [True]
    assert list(folder.iterdir()) == []
    assert Opens(model_folder).wrote


def test_no_room_is_noticed_before_it_is_filled(
    model_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_cache.shutil, "disk_usage", lambda path: type("", (), {"free": 1000})())
    assert "MiB are needed" in Opens(model_folder).warnings[0]
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_left_counts_as_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    part = pack_path(IDENTITY).with_suffix(".part")
    part.write_bytes(bytes(1 << 20))

    def usage(path: Path) -> object:
        return type("", (), {"free": 100_000 - part.stat().st_size})()

    monkeypatch.setattr(pack_cache.shutil, "disk_usage", usage)
    assert write_pack(IDENTITY, CONTENT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_a_warning(model_folder: Path, folder: Path) -> None:
    folder.mkdir(mode=0o500)
    assert "Permission denied" in Opens(model_folder).warnings[0]


def test_a_file_in_the_folder_s_place_is_a_warning(model_folder: Path, folder: Path) -> None:
    folder.write_text("")
    with pytest.warns(StateWarning, match="cannot write to the pack cache"):
        memory(model_folder)


def test_clearing_deletes_packs_and_nothing_else(model_folder: Path, folder: Path) -> None:
    assert pack_cache.clear() == []
    Opens(model_folder)
    half = only_pack(folder).with_suffix(".part")
    half.write_text("x")
    mine = {"mine.txt", "half.part", "brushes.pack", f"{half.name}.txt", half.name.upper(), f"{'0' * 31}.pack"}
    for name in mine:
        (folder / name).write_text("x")
    (folder / f"{'0' * 32}.pack").mkdir()
    assert sorted((path.suffix, size == 1) for path, size in pack_cache.clear()) == [(".pack", False), (".part", True)]
    assert {path.name for path in folder.iterdir()} == mine | {f"{'0' * 32}.pack"}


def test_packs_are_forgotten_with_the_model_that_they_are_of(tmp_path: Path, folder: Path) -> None:
    gone, kept = (write_small_model(tmp_path / name) for name in ("gone", "gone and kept"))
    for path in (gone, kept):
        memory(path)
    assert [entry.is_orphan for entry in pack_cache.packs()] == [False, False]
    shutil.rmtree(gone)
    assert sorted(entry.is_orphan for entry in pack_cache.packs()) == [False, True]
    pack_cache.forget([gone.resolve()])
    (entry,) = pack_cache.packs()
    assert entry.model == str(kept.resolve() / "model.safetensors")
    pack_cache.forget([Path(entry.model)])
    assert pack_cache.packs() == []


def test_a_folder_that_cannot_be_looked_into_is_a_warning(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_PACKS", "/" + "x" * 300)
    with pytest.warns(StateWarning) as caught:
        memory(model_folder)
    assert [str(warning.message).count("File name too long") for warning in caught] == [1, 1]


def test_progress_reaches_the_end_whether_packs_are_written_or_read(model_folder: Path) -> None:
    for kept in (False, True, True):
        told: list[tuple[int, int]] = []
        with open_source(model_folder) as source:
            open_model(source, format=Q8_0, pack_cache=kept, progress=lambda *now, told=told: told.append(now))
        assert told == sorted(told)
        assert len({total for _, total in told}) == 1
        assert told[-1][0] == told[-1][1]


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWICK_PACKS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert packs_folder() == tmp_path / "qwick" / "packed"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert packs_folder() == tmp_path / ".cache" / "qwick" / "packed"
    monkeypatch.setenv("QWICK_PACKS", "/dev/null/packs")
    with pytest.raises(UsageError, match="cannot read"):
        pack_cache.packs()


def test_a_tensor_takes_only_as_many_checksums_as_it_has_pieces() -> None:
    backend = NativeBackend(1)
    rows = PACKED_PIECE_BYTES // 34 // 32 * 2
    tensor = backend.add_matrix(
        "w", (rows, 1024), Q8_0, [(0, encode(np.ones((rows, 1024), np.float32), Q8_0, 1))], Q8_0
    )
    sums = packed_sums(tensor)
    assert len(sums) == -(-tensor.num_bytes // PACKED_PIECE_BYTES) > 1
    assert len(set(sums)) > 1
    for wrong in (sums[1:], [*sums, 1], []):
        with pytest.raises(KernelError):
            backend.add_packed("p", (rows, 1024), Q8_0, Path("x"), 0, 0, wrong)


def test_the_layout_has_the_version_that_it_is_packed_under() -> None:
    """When this fails because blocks lie otherwise in memory now: raise kLayoutVersion, write the new digest here."""
    backend, digest = NativeBackend(1), hashlib.sha256()
    for format in sorted(set(FILE_DTYPES.values()), key=lambda format: format.ggml_type):
        shape = (20, 512)
        data = (np.arange(format.num_bytes(*shape)) * 37 % 251).astype(np.uint8).reshape(shape[0], -1)
        rows = data if format.is_blocks else data.view({4: np.float32, 2: np.uint16}[format.block_bytes])
        tensor = backend.add_matrix(format.name, shape, format, [(0, rows)], format if format.is_blocks else None)
        digest.update(tensor.view())
    assert (LAYOUT_VERSION, digest.hexdigest()[:16]) == (1, "9b374a119ec87c36")
