"""A model's tensors by name, whatever files they lie in."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self, cast

from numpy.typing import NDArray

from qwick.errors import CheckpointError, UsageError
from qwick.weights.files import JSON_LIMIT_BYTES, MAX_SHARDS, Place, RegularFile, TensorInfo, named, read_json
from qwick.weights.gguf import open_gguf
from qwick.weights.gguf_header import MAGIC, NO_METADATA, Metadata, Strings
from qwick.weights.safetensors import SafetensorsFile

__all__ = [
    "JSON_LIMIT_BYTES",
    "NO_METADATA",
    "Checkpoint",
    "Metadata",
    "Strings",
    "TensorInfo",
    "is_gguf",
    "named",
    "open_checkpoint",
    "read_json",
]

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
ADAPTER_NAME = "adapter_model.safetensors"
INDEX_LIMIT_BYTES = 1 << 22  # the 9B's has 70 KB


class Checkpoint(Protocol):
    """Tensors by name. Not for several threads at once unless it says so; a context manager that closes itself."""

    @property
    def path(self) -> Path:
        """The folder or file that was opened."""
        ...

    @property
    def metadata(self) -> Metadata:
        """What a GGUF file says beside its tensors; empty for safetensors, whose folders have JSON files for it."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors of all files. A dtype that qwick cannot read may be among them; only reading it is an error."""
        ...

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of the first dimension -> a fresh array [stop - start, ...] that the caller owns.

        float32 for F32; float16; uint16 holding bf16 bits for BF16; uint8 [..., row bytes] for blocks of a Format.
        Other quantised types, and blocks in a tensor of rank 1, come decoded to float32. Rank 0 is one row.
        Raises CheckpointError when the file cannot deliver or the dtype is unknown, KeyError for an unknown name,
        ValueError for rows that do not exist.
        """
        ...

    def place(self, name: str) -> Place | None:
        """Where a tensor's bytes begin, for who reads files by itself; None when they lie in no file."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _File(Protocol):
    """One file of a checkpoint."""

    path: Path
    tensors: Mapping[str, TensorInfo]

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]: ...
    def place(self, name: str) -> Place: ...
    def close(self) -> None: ...


class _Files:
    """One or many files as one checkpoint. Reads use no shared state: threads may read side by side."""

    def __init__(self, path: Path, files: Iterable[_File], metadata: Metadata = NO_METADATA) -> None:
        self.path = path
        self.metadata = metadata
        self._files: list[_File] = []
        self._home: dict[str, _File] = {}
        try:
            for file in files:
                self._add(file)
        except BaseException:
            self.close()
            raise
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: file.tensors[name] for name, file in self._home.items()}
        )

    def _add(self, file: _File) -> None:
        self._files.append(file)
        for name in file.tensors:
            if name in self._home:
                other = self._home[name].path
                raise CheckpointError(f"{file.path}: tensor {name!a} is in {other.name} too; one of the two is wrong")
            self._home[name] = file

    def home(self, name: str) -> Path | None:
        """The file that holds `name`."""
        file = self._home.get(name)
        return file.path if file else None

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        return self._home[name].read(name, start, stop)

    def place(self, name: str) -> Place:
        return self._home[name].place(name)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(path: Path) -> Checkpoint:
    """The weights in `path`: a Hugging Face folder, one safetensors file, or a GGUF file (any part of a split one).

    In a folder: `model.safetensors`, else the shards that `model.safetensors.index.json` names, else the only
    *.safetensors. A GGUF file may have any name. Raises UsageError when `path` does not exist, CheckpointError for
    anything wrong with the files.
    """
    try:
        is_folder = path.is_dir()
        exists = is_folder or path.exists()
    except (OSError, ValueError):  # unreadable, too long, a NUL inside
        is_folder = exists = False
    if not exists:
        raise UsageError(f"{path}: no such file or folder")
    if not is_folder:
        return _open_file(path)
    if (path / SINGLE_NAME).exists():
        return _open_safetensors(path, [path / SINGLE_NAME])
    if (path / INDEX_NAME).exists():
        return _open_shards(path)
    return _open_safetensors(path, [_only_file(path)])


def _open_file(path: Path) -> Checkpoint:
    if path.suffix == ".gguf" or (path.suffix != ".safetensors" and is_gguf(path)):
        files = open_gguf(path)
        return _Files(path, files, files[0].metadata)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: not a folder, a .gguf or a .safetensors file, which is what qwick reads")
    return _open_safetensors(path, [path])


def _open_safetensors(path: Path, paths: Iterable[Path]) -> _Files:
    return _Files(path, map(SafetensorsFile, paths))


def is_gguf(path: Path) -> bool:
    """Whether `path` is a file that begins as a GGUF file does, whatever its name (stores name files by their hash)."""
    try:
        file = RegularFile(path)
    except CheckpointError:
        return False
    try:
        return file.num_bytes >= len(MAGIC) and file.read(0, len(MAGIC)) == MAGIC
    finally:
        file.close()


def _open_shards(folder: Path) -> Checkpoint:
    index = folder / INDEX_NAME
    weight_map = _weight_map(index)
    shards = sorted(set(weight_map.values()))
    if len(shards) > MAX_SHARDS:
        raise CheckpointError(f"{index}: names {len(shards)} files; at most {MAX_SHARDS} are read")
    missing = [shard for shard in shards if not (folder / shard).exists()]
    if missing:
        raise CheckpointError(f"{folder}: {named(missing, most=1)} of {len(shards)} shards missing; download the rest")
    checkpoint = _open_safetensors(folder, [folder / shard for shard in shards])
    for name, shard in weight_map.items():
        if checkpoint.home(name) != folder / shard:
            checkpoint.close()
            raise CheckpointError(f"{folder / shard}: lacks tensor {name!a}, which {INDEX_NAME} promises to be there")
    return checkpoint


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index, INDEX_LIMIT_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no weight_map from tensor names to files")
    for name, shard in cast("dict[str, object]", weight_map).items():
        if not isinstance(shard, str) or not _is_plain_name(shard):
            raise CheckpointError(
                f"{index}: {name!a} is said to be in {shard!a:.200}, which is no safetensors file here"
            )
    return cast("dict[str, str]", weight_map)


def _is_plain_name(shard: str) -> bool:
    """An index must not lead out of its folder."""
    return shard.endswith(".safetensors") and len(shard) <= 255 and "\0" not in shard and Path(shard).name == shard


def _only_file(folder: Path) -> Path:
    """The one safetensors file of a folder without an index; else an error with what is there instead."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot list: {error.strerror}") from None
    found = [name for name in names if name.endswith(".safetensors")]
    if found == [ADAPTER_NAME]:
        raise CheckpointError(f"{folder}: only a LoRA adapter; give the folder of the model that it belongs to")
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise CheckpointError(
            f"{folder}: {len(found)} safetensors files but no {SINGLE_NAME} or {INDEX_NAME}; download {INDEX_NAME} too"
        )
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        raise CheckpointError(
            f"{folder}: only pickled weights (.bin), which can run code and are not read; "
            "convert them with save_pretrained(..., safe_serialization=True) of transformers"
        )
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        raise CheckpointError(f"{folder}: holds GGUF files ({named(ggufs)}); give one of them instead of the folder")
    raise CheckpointError(f"{folder}: no safetensors file; is this the model's folder, and is the download complete?")
