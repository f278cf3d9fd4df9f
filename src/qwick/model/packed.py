"""A network's matrices from the pack cache, and into it."""

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from qwick.formats import Format
from qwick.model.load import memory_format
from qwick.model.names import TensorSpec
from qwick.model.qwen3_5 import Qwen3_5
from qwick.model.source import Source
from qwick.ops.contract import Progress
from qwick.ops.native import LAYOUT_VERSION, PACKED_PIECE_BYTES, VERSION, NativeBackend, NativeWeight, packed_sums
from qwick.weights.pack_cache import write_pack
from qwick.weights.pack_file import Content, Identity, Pack


def identity_of(source: Source, format: Format | None) -> Identity:
    """Of the files as they are opened now. The order of rows is config.json's to say, which is none of `files`."""
    fds = {place.path: place.fd for place in map(source.checkpoint.place, source.files.values()) if place}
    files = [(str(Path(path).resolve()), os.fstat(fd)) for path, fd in sorted(fds.items())]
    return Identity(
        tuple((path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino) for path, found in files),
        _digest(source.specs),
        format.name if format else None,
        LAYOUT_VERSION,
        VERSION,
    )


def _digest(specs: Iterable[TensorSpec]) -> str:
    digest = blake2b(digest_size=16)
    for spec in specs:
        orders = (spec.row_order, spec.col_order)
        digest.update(repr((spec.name, spec.shape, *(order is None for order in orders))).encode())
        for order in orders:
            digest.update(b"" if order is None else order.tobytes())
    return digest.hexdigest()


def holds(pack: Pack, source: Source, format: Format | None) -> bool:
    """Whether `pack` has just the matrices that `source` asks for, in the right form."""
    matrices = [spec for spec in source.specs if spec.matrix]
    return len(pack.tensors) == len(matrices) and all(_fits(pack, spec, source, format) for spec in matrices)


def _fits(pack: Pack, spec: TensorSpec, source: Source, format: Format | None) -> bool:
    place, stored = pack.tensors.get(spec.name), memory_format(spec, source.info(spec).dtype, format)
    return (
        place is not None
        and (place.family, place.shape) == (stored.family.value, spec.shape)
        and place.num_bytes == stored.family.num_bytes(*spec.shape)
        and len(place.sums) == -(-place.num_bytes // PACKED_PIECE_BYTES)
    )


def from_pack(pack: Pack, backend: NativeBackend, spec: TensorSpec, format: Format) -> NativeWeight:
    """To be read by `backend.read_files`, which raises PackError."""
    place, (rows, cols) = pack.tensors[spec.name], spec.shape
    return backend.add_packed(spec.name, (rows, cols), format, pack.path, pack.fd, place.offset, place.sums)


def save(
    identity: Identity,
    network: Qwen3_5[NativeWeight],
    source: Source,
    format: Format | None,
    progress: Progress | None = None,
) -> None:
    """Keep the matrices for the next time. Warns (StateWarning) when that cannot be."""
    contents: dict[str, Content] = {}
    for spec in source.specs:
        if spec.matrix:
            tensor, (rows, cols) = network.weights[spec.name], spec.shape
            family = memory_format(spec, source.info(spec).dtype, format).family.value
            contents[spec.name] = Content(family, (rows, cols), tensor.view().data, packed_sums(tensor))
    write_pack(identity, contents, progress)
