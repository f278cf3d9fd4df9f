"""The types of ggml: their sizes, and the decoding of those that no kernel reads.

IQ1, IQ2, IQ3, TQ and NVFP4 are too rare for kernels of their own and their tables are long: the `gguf` package decodes
them. It is imported only then. Sizes: ggml.h, ggml-common.h.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qwick.formats import FORMATS


class Stored(NamedTuple):
    """A type of ggml: `block_len` values along the last dimension take `block_bytes` bytes."""

    name: str
    block_len: int
    block_bytes: int


_PLAIN = {
    24: Stored("I8", 1, 1),
    25: Stored("I16", 1, 2),
    26: Stored("I32", 1, 4),
    27: Stored("I64", 1, 8),
    9: Stored("Q8_1", 32, 36),  # this and the next: of activations, never in files
    15: Stored("Q8_K", 256, 292),
}
_DECODED = {
    16: Stored("IQ2_XXS", 256, 66),
    17: Stored("IQ2_XS", 256, 74),
    18: Stored("IQ3_XXS", 256, 98),
    19: Stored("IQ1_S", 256, 50),
    21: Stored("IQ3_S", 256, 110),
    22: Stored("IQ2_S", 256, 82),
    28: Stored("F64", 1, 8),
    29: Stored("IQ1_M", 256, 56),
    34: Stored("TQ1_0", 256, 54),
    35: Stored("TQ2_0", 256, 66),
    40: Stored("NVFP4", 64, 36),
    41: Stored("Q1_0", 128, 18),
    42: Stored("Q2_0", 64, 18),
}
_FORMATS = {f.ggml_type: Stored(f.name.upper(), f.block_len, f.block_bytes) for f in FORMATS.values()}
TYPES = _PLAIN | _DECODED | _FORMATS  # by number
DECODED = frozenset(kind.name for kind in _DECODED.values())  # weights in these are decoded when they are read


def decode(kind: Stored, rows: NDArray[Any]) -> NDArray[np.float32]:
    """[n, row bytes] uint8 (F64: [n, k] values) -> f32 [n, k]. Raises NotImplementedError."""
    if kind.name == "F64":
        return rows.astype(np.float32)
    if kind.name in ("Q1_0", "Q2_0"):
        return _decode_bits(rows, 1 if kind.name == "Q1_0" else 2, kind.block_bytes)
    try:
        import gguf

        decoded = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind.name])
    except (ImportError, KeyError):
        raise NotImplementedError from None
    return decoded.astype(np.float32, copy=False)


def _decode_bits(rows: NDArray[np.uint8], num_bits: int, block_bytes: int) -> NDArray[np.float32]:
    """An f16 scale and small numbers, the first in the lowest bits: 1 bit is -1 or 1, 2 bits are -1, 0, 1 or 2."""
    blocks = rows.reshape(len(rows), -1, block_bytes)
    scales = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16).astype(np.float32)
    shifts = np.arange(0, 8, num_bits, dtype=np.uint8)
    numbers = (blocks[:, :, 2:, None] >> shifts) & np.uint8((1 << num_bits) - 1)
    values = numbers.reshape(*blocks.shape[:2], -1).astype(np.float32)
    values = values * 2 - 1 if num_bits == 1 else values - 1
    return (values * scales).reshape(len(rows), -1)
