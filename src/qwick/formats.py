"""How weights are stored, and which kernel family reads them.

A *format* is what a file or the user names (`bf16`, `q8_0`); a *family* is what a kernel is written for.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwick.errors import UsageError


class Family(StrEnum):
    """Kernel families; the values are the names that `qwick._kernels` uses."""

    F32 = "f32"
    BF16 = "bf16"
    I8 = "i8"  # int8 values, one f16 scale per block along the input dimension


@dataclass(frozen=True, slots=True)
class Format:
    """A storage format: `block_len` values along the input dimension take `block_bytes` bytes."""

    name: str
    family: Family
    block_len: int
    block_bytes: int

    def num_bytes(self, rows: int, cols: int) -> int:
        """Bytes of a [rows, cols] matrix; cols must be a multiple of `block_len`."""
        return rows * (cols // self.block_len) * self.block_bytes


F32 = Format("f32", Family.F32, 1, 4)
BF16 = Format("bf16", Family.BF16, 1, 2)
Q8_0 = Format("q8_0", Family.I8, 32, 34)

FORMATS = {f.name: f for f in (F32, BF16, Q8_0)}

# Lossless in-memory home of each dtype a safetensors file may use. F16 has more mantissa than bf16, so it widens.
FILE_DTYPES = {"F32": F32, "BF16": BF16, "F16": F32}


def format_named(name: str) -> Format:
    """The format called `name`. Raises UsageError naming the known ones."""
    try:
        return FORMATS[name.lower()]
    except KeyError:
        raise UsageError(f"unknown format {name!r}; known formats: {', '.join(FORMATS)}") from None


def widened(values: NDArray[Any]) -> NDArray[np.float32]:
    """f32 as it is, or bf16 bits (uint16) as f32: exact."""
    return values if values.dtype == np.float32 else (values.astype(np.uint32) << 16).view(np.float32)
