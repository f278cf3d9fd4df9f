"""A loaded model beside the files that it came from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwick.formats import FILE_DTYPES, Family, widened
from qwick.model.load import memory_format
from qwick.model.model import Model
from qwick.model.names import TensorSpec
from qwick.model.source import Source
from qwick.ops.contract import Float32
from qwick.ops.native import NativeBackend, NativeWeight, decode


@dataclass(frozen=True, slots=True)
class Subject:
    """The model must hold its matrices as the files have them."""

    model: Model[NativeWeight]
    source: Source

    @property
    def backend(self) -> NativeBackend:
        backend = self.model.backend
        assert isinstance(backend, NativeBackend)
        return backend

    @property
    def matrices(self) -> Sequence[TensorSpec]:
        return [spec for spec in self.source.specs if spec.matrix]

    @property
    def vectors(self) -> Sequence[TensorSpec]:
        return [spec for spec in self.source.specs if not spec.matrix]

    def family(self, spec: TensorSpec) -> Family:
        return memory_format(spec, self.source.info(spec).dtype, None).family

    def weight(self, spec: TensorSpec) -> NativeWeight:
        return self.model.weight(spec.name)

    def vector(self, spec: TensorSpec) -> Float32:
        """A vector as memory holds it, flat."""
        return self.weight(spec).view().view(np.float32)

    def file_rows(self, spec: TensorSpec, rows: NDArray[np.int64]) -> Float32:
        """Canonical rows of a matrix [n, k], each read from the file and decoded on its own."""
        name, dtype = self.source.files[spec.name], self.source.info(spec).dtype
        order = rows if spec.row_order is None else spec.row_order[rows]
        found = np.concatenate([self.source.checkpoint.read(name, int(row), int(row) + 1) for row in order])
        if found.dtype == np.uint8:
            values = decode(found, FILE_DTYPES[dtype])
        else:
            values = widened(found)
            if dtype not in FILE_DTYPES:  # decoded at load, kept in bf16
                values = _to_bf16(values)
        return values if spec.col_order is None else np.ascontiguousarray(values[:, spec.col_order])

    def file_vector(self, spec: TensorSpec) -> Float32:
        return self.source.vector(spec)


def _to_bf16(values: Float32) -> Float32:
    """Rounded to the nearest bf16, ties to even; finite values only."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
