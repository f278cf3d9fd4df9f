"""A model's files, opened: which network they describe, and where each of its tensors lies.

What is below knows no model, what is above knows no files: a folder and a GGUF file look the same from here on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qwick.errors import CheckpointError
from qwick.formats import FILE_DTYPES, ROWS_TOGETHER, widened
from qwick.model.config import ModelConfig, load_config
from qwick.model.config_gguf import parse_gguf_config
from qwick.model.names import TensorSpec, file_names, has_head, has_mtp, tensor_specs
from qwick.model.names_gguf import gguf_file_names, gguf_specs
from qwick.ops.contract import FileRows, Float32, Progress, Windows
from qwick.weights.checkpoint import Checkpoint, Metadata, TensorInfo, open_checkpoint
from qwick.weights.gguf_types import DECODED

SAFETENSORS_DTYPES = ("F32", "BF16", "F16")
GGUF_DTYPES = (*FILE_DTYPES, *sorted(DECODED))
WINDOW_BYTES = 8 << 20  # of rows held at once, besides the weights themselves

LoadProgress: TypeAlias = Callable[[int, int], None]
"""(bytes read so far, bytes in all)"""


@dataclass(frozen=True, slots=True)
class Source:
    """An opened model. A context manager that closes its files.

    config  as resolved by the tensors: tied or not, MTP block or not
    specs   the network's tensors in canonical order
    files   canonical name -> name in the files
    """

    checkpoint: Checkpoint
    config: ModelConfig
    specs: tuple[TensorSpec, ...]
    files: Mapping[str, str]

    @classmethod
    def of_folder(cls, checkpoint: Checkpoint, config: ModelConfig) -> Self:
        """From safetensors and their config.json. Raises CheckpointError naming tensors that do not fit."""
        names = checkpoint.tensors.keys()
        tied = config.tie_word_embeddings
        config = config.resolved(
            tie_word_embeddings=not has_head(names) if tied is None else tied, has_mtp=has_mtp(names)
        )
        specs = tuple(tensor_specs(config))
        return cls._checked(checkpoint, config, specs, file_names(specs, names), SAFETENSORS_DTYPES)

    @classmethod
    def of_gguf(cls, checkpoint: Checkpoint) -> Self:
        """From a GGUF file. Raises ConfigError and CheckpointError."""
        names = checkpoint.tensors.keys()
        config = parse_gguf_config(checkpoint)
        if "blk.0.attn_norm.weight" not in names and config.has_mtp:
            raise CheckpointError(f"{checkpoint.path}: holds an MTP block alone; give the GGUF file of the whole model")
        config = config.resolved(tie_word_embeddings="output.weight" not in names, has_mtp=config.has_mtp)
        specs = tuple(gguf_specs(config))
        return cls._checked(checkpoint, config, specs, gguf_file_names(specs, names), GGUF_DTYPES)

    @classmethod
    def _checked(
        cls,
        checkpoint: Checkpoint,
        config: ModelConfig,
        specs: tuple[TensorSpec, ...],
        files: Mapping[str, str],
        dtypes: Sequence[str],
    ) -> Self:
        source = cls(checkpoint, config, specs, files)
        for spec in specs:
            name, info = files[spec.name], source.info(spec)
            if info.dtype not in dtypes:
                raise CheckpointError(f"{name} has dtype {info.dtype}; qwick reads {', '.join(dtypes)}")
            if tuple(info.shape) != spec.shape:
                raise CheckpointError(
                    f"{name} has shape {list(info.shape)}, but the config asks for {list(spec.shape)}"
                )
        return source

    @property
    def path(self) -> Path:
        """The folder or file that was opened."""
        return self.checkpoint.path

    @property
    def metadata(self) -> Metadata:
        """What a GGUF file says beside its tensors: tokenizer, template; empty for a folder."""
        return self.checkpoint.metadata

    @property
    def num_bytes(self) -> int:
        """Of the network's tensors in the files: what `Progress` adds up to."""
        return sum(self.info(spec).num_bytes for spec in self.specs)

    def counting(self, progress: LoadProgress | None, total: int | None = None) -> Progress:
        """What adds up the bytes read since the last call, and tells `progress` how far that is. `total`: not ours."""
        total, done = self.num_bytes if total is None else total, 0

        def advance(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            if progress:
                progress(done, total)

        return advance

    def info(self, spec: TensorSpec) -> TensorInfo:
        """What the files say about a tensor."""
        return self.checkpoint.tensors[self.files[spec.name]]

    def vector(self, spec: TensorSpec, progress: Progress | None = None) -> Float32:
        """A whole tensor that is no matrix, in canonical form; the convolution as [channels, taps]."""
        values = widened(self.checkpoint.read(self.files[spec.name], 0, spec.shape[0])).reshape(spec.shape)
        if progress:
            progress(self.info(spec).num_bytes)
        canonical = spec.to_canonical(values)
        return canonical[:, 0] if canonical.ndim == 3 else canonical

    def rows(self, spec: TensorSpec, progress: Progress | None = None) -> Windows:
        """A matrix in canonical order; `FileRows` where the file has it so."""
        windows = self.windows(spec, progress)
        place, format = self.checkpoint.place(self.files[spec.name]), FILE_DTYPES.get(self.info(spec).dtype)
        if place is None or format is None or not (_ascending(spec.row_order) and _ascending(spec.col_order)):
            return windows
        return FileRows(windows, place.path, place.fd, place.offset, format)

    def windows(self, spec: TensorSpec, progress: Progress | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """(first row, rows) of a matrix in canonical order, as `ops.contract.Windows` says."""
        info, (num_rows, num_cols) = self.info(spec), spec.shape
        row_bytes = info.num_bytes // num_rows
        held_bytes = 4 * num_cols if info.dtype in DECODED else row_bytes
        most = max(ROWS_TOGETHER, WINDOW_BYTES // held_bytes // ROWS_TOGETHER * ROWS_TOGETHER)
        for first in range(0, num_rows, most):
            stop = min(num_rows, first + most)
            rows = self._rows(spec, first, stop)
            if progress:
                progress((stop - first) * row_bytes)
            yield first, rows if spec.col_order is None else np.ascontiguousarray(rows[:, spec.col_order])

    def _rows(self, spec: TensorSpec, first: int, stop: int) -> NDArray[Any]:
        """Canonical rows [first, stop), gathered from consecutive stretches of the file."""
        name, read = self.files[spec.name], self.checkpoint.read
        if spec.row_order is None:
            return read(name, first, stop)
        order = spec.row_order[first:stop]
        breaks = [0, *(np.flatnonzero(np.diff(order) != 1) + 1).tolist(), len(order)]
        stretches = [read(name, int(order[i]), int(order[j - 1]) + 1) for i, j in pairwise(breaks)]
        return stretches[0] if len(stretches) == 1 else np.concatenate(stretches)

    def close(self) -> None:
        """Idempotent."""
        self.checkpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ascending(order: NDArray[np.int64] | None) -> bool:
    """Whether it changes nothing, as where value and key heads are as many."""
    return order is None or bool((order == np.arange(len(order))).all())


def open_source(path: Path) -> Source:
    """The model in `path`: a Hugging Face folder, or a GGUF file (any part of a split one).

    Raises UsageError when there is nothing, CheckpointError and ConfigError for what is wrong with it.
    """
    config = load_config(path) if path.is_dir() else None
    checkpoint = open_checkpoint(path)
    try:
        return Source.of_gguf(checkpoint) if config is None else Source.of_folder(checkpoint, config)
    except BaseException:
        checkpoint.close()
        raise
