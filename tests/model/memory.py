"""A checkpoint that lies in memory."""

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qwick.weights.checkpoint import TensorInfo


@dataclass
class MemoryCheckpoint:
    """`Checkpoint` over f32 arrays; `dtypes` pretends that a tensor has another dtype."""

    arrays: dict[str, NDArray[np.float32]]
    dtypes: dict[str, str] = field(default_factory=dict)
    path: Path = Path("memory")
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        return {n: TensorInfo(self.dtypes.get(n, "F32"), x.shape, x.nbytes) for n, x in self.arrays.items()}

    def read(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        return self.arrays[name][start:stop].copy()

    def place(self, name: str) -> None:
        """Nowhere in a file."""

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
