"""An opened model -> a GGUF file in another format, window by window; the model is never whole in memory."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwick.formats import F32, FILE_DTYPES, Format, widened
from qwick.model.names import TensorSpec
from qwick.model.names_gguf import gguf_name
from qwick.model.source import LoadProgress, Source
from qwick.ops import native
from qwick.quantize.metadata import file_keys, folder_metadata
from qwick.quantize.recipes import Recipe
from qwick.weights.gguf import DECODED
from qwick.weights.gguf_writer import NewTensor, Value, write_gguf

# Keys that say how the source's file was cut, aligned and quantised.
_OF_THE_FILE = ("split.", "quantize.", "general.alignment")


@dataclass(frozen=True, slots=True)
class Converted:
    """What came out.

    tensors     how many have which format
    left_out    names of the source's tensors that were not taken
    was_coarse  whether blocks were decoded and encoded again: that loses more than from the original weights
    """

    path: Path
    num_bytes: int
    source_bytes: int
    num_parameters: int
    tensors: Mapping[str, int]
    left_out: tuple[str, ...]
    was_coarse: bool
    seconds: float

    @property
    def bits_per_weight(self) -> float:
        """Of the whole file, metadata too."""
        return 8 * self.num_bytes / self.num_parameters


def convert(
    source: Source,
    path: Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    threads: int | None = None,
    progress: LoadProgress | None = None,
) -> Converted:
    """Write `source` as the GGUF file `path`, each matrix in the format that `recipe` chooses.

    Blocks that have the chosen format already are copied. What is no part of the text network (the vision tower) is
    left out. Raises CheckpointError (the source), UsageError and CapacityError (the target).
    """
    begin = time.monotonic()
    advance = source.counting(progress)
    formats = recipe.formats(source.config)
    encoder = native.Encoder(threads)
    tensors = [_new_tensor(source, spec, formats.get(spec.name, F32), encoder, advance) for spec in source.specs]
    num_parameters = sum(prod(spec.shape) for spec in source.specs)
    num_bytes = write_gguf(path, _metadata(source, recipe, num_parameters), tensors, overwrite=overwrite)
    taken = set(source.files.values())
    return Converted(
        path=path,
        num_bytes=num_bytes,
        source_bytes=source.num_bytes,
        num_parameters=num_parameters,
        tensors=Counter(tensor.format.name for tensor in tensors),
        left_out=tuple(name for name in source.checkpoint.tensors if name not in taken),
        was_coarse=any(_is_encoded_again(source, spec, format) for spec, format in _matrices(source, formats)),
        seconds=time.monotonic() - begin,
    )


def _metadata(source: Source, recipe: Recipe, num_parameters: int) -> dict[str, Value]:
    if not source.metadata:
        return folder_metadata(source.path, source.config, recipe, num_parameters)
    kept = {key: value for key, value in source.metadata.items() if not key.startswith(_OF_THE_FILE)}
    return kept | file_keys(recipe)


def _new_tensor(
    source: Source, spec: TensorSpec, format: Format, encoder: native.Encoder, advance: Callable[[int], None]
) -> NewTensor:
    name = gguf_name(spec.name, source.config.num_layers)
    if not spec.matrix:
        # The convolution has [channels, 1, taps] in a folder and [channels, taps] in GGUF.
        shape = (spec.shape[0], spec.shape[-1]) if len(spec.shape) > 1 else spec.shape
        return NewTensor(name, shape, F32, lambda: [source.vector(spec, advance)])
    held = FILE_DTYPES.get(source.info(spec).dtype)  # None: decoded when read

    def pieces() -> Iterator[NDArray[Any]]:
        for _, rows in source.windows(spec, advance):
            yield rows if held == format else encoder.encode(_values(rows, held), format)

    return NewTensor(name, spec.shape, format, pieces)


def _values(rows: NDArray[Any], held: Format | None) -> NDArray[np.float32]:
    return native.decode(rows, held, 1) if held is not None and held.is_blocks else widened(rows)


def _matrices(source: Source, formats: Mapping[str, Format]) -> Iterator[tuple[TensorSpec, Format]]:
    return ((spec, formats[spec.name]) for spec in source.specs if spec.matrix)


def _is_encoded_again(source: Source, spec: TensorSpec, format: Format) -> bool:
    dtype = source.info(spec).dtype
    held = FILE_DTYPES.get(dtype)
    return format.is_blocks and (dtype in DECODED or (held is not None and held.is_blocks and held != format))
