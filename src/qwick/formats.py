"""How weights are stored, and which kernel family reads them.

A *format* is what a file or the user names (`bf16`, `q4_k`); a *family* is what a kernel is written for. Files hold
blocks of one row after another; memory holds them regrouped by 16 rows (kernels/blocks.h), transcoded without loss.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwick.errors import UsageError


class Family(StrEnum):
    """Kernel families; the values are the names that `qwick._kernels` uses.

    u4, u5, u6: unsigned integers of so many bits; i8: signed bytes; t4: a table of 16 values. `m`: a minimum beside the
    scale. `k`: small integer scales per sub-block under one f16 per 256; `s`: the same with sub-blocks of 16.
    """

    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"
    I8 = "i8"
    U4 = "u4"
    U4M = "u4m"
    U5 = "u5"
    U5M = "u5m"
    T4 = "t4"  # f16 scale, IQ4's table
    T4E = "t4e"  # scale a power of two (bf16), FP4's table
    U4K = "u4k"
    U5K = "u5k"
    U6K = "u6k"
    U4S = "u4s"
    T4K = "t4k"

    @property
    def block_len(self) -> int:
        """Values along the input dimension in one block of memory."""
        return _MEMORY[self][0]

    def num_bytes(self, rows: int, cols: int) -> int:
        """Bytes of a [rows, cols] matrix in memory; cols is a multiple of `block_len`. Blocks: rows fill up to 16."""
        block_len, block_bytes = _MEMORY[self]
        padded = rows if block_len == 1 else -(-rows // ROWS_TOGETHER) * ROWS_TOGETHER
        return padded * (cols // block_len) * block_bytes


ROWS_TOGETHER = 16  # rows whose blocks lie interleaved in memory

_MEMORY = {  # family -> (values, bytes) of one row's block
    Family.F32: (1, 4),
    Family.BF16: (1, 2),
    Family.F16: (1, 2),
    Family.I8: (32, 34),
    Family.U4: (32, 18),
    Family.U4M: (32, 20),
    Family.U5: (32, 22),
    Family.U5M: (32, 24),
    Family.T4: (32, 18),
    Family.T4E: (32, 18),
    Family.U4K: (256, 144),
    Family.U5K: (256, 176),
    Family.U6K: (256, 210),
    Family.U4S: (256, 164),  # 16 scales and 16 minima of a byte, two f16
    Family.T4K: (256, 138),  # 8 scales of a byte (6 bits in the file), one f16
}


@dataclass(frozen=True, slots=True)
class Format:
    """A storage format of files: `block_len` values along the input dimension take `block_bytes` bytes.

    `ggml_type` is the number that GGUF files and `qwick._kernels` know it by; `family` its home in memory, which holds
    it without loss.
    """

    name: str
    ggml_type: int
    family: Family
    block_len: int
    block_bytes: int

    @property
    def is_blocks(self) -> bool:
        """Whether values lie in blocks that only the kernels take apart (uint8 rows), not one by one."""
        return self.block_len > 1

    def num_bytes(self, rows: int, cols: int) -> int:
        """Bytes of a [rows, cols] matrix in a file; cols must be a multiple of `block_len`."""
        return rows * (cols // self.block_len) * self.block_bytes


F32 = Format("f32", 0, Family.F32, 1, 4)
F16 = Format("f16", 1, Family.F16, 1, 2)
BF16 = Format("bf16", 30, Family.BF16, 1, 2)
Q4_0 = Format("q4_0", 2, Family.U4, 32, 18)
Q4_1 = Format("q4_1", 3, Family.U4M, 32, 20)
Q5_0 = Format("q5_0", 6, Family.U5, 32, 22)
Q5_1 = Format("q5_1", 7, Family.U5M, 32, 24)
Q8_0 = Format("q8_0", 8, Family.I8, 32, 34)
Q2_K = Format("q2_k", 10, Family.U4S, 256, 84)
Q3_K = Format("q3_k", 11, Family.U4S, 256, 110)
Q4_K = Format("q4_k", 12, Family.U4K, 256, 144)
Q5_K = Format("q5_k", 13, Family.U5K, 256, 176)
Q6_K = Format("q6_k", 14, Family.U6K, 256, 210)
IQ4_NL = Format("iq4_nl", 20, Family.T4, 32, 18)
IQ4_XS = Format("iq4_xs", 23, Family.T4K, 256, 136)
MXFP4 = Format("mxfp4", 39, Family.T4E, 32, 17)

FORMATS = {
    f.name: f
    for f in (
        F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4
    )
}  # fmt: skip
ENCODABLE = (F32, F16, BF16, Q4_0, Q8_0, Q4_K, Q5_K, Q6_K)  # what qwick writes, and what `--format` takes

# What a file calls its dtype (safetensors and GGUF agree) -> format.
FILE_DTYPES = {f.name.upper(): f for f in FORMATS.values()}


def format_named(name: str) -> Format:
    """The format called `name` that weights can be turned into. Raises UsageError naming those."""
    format = FORMATS.get(name.lower())
    if format not in ENCODABLE:
        raise UsageError(f"unknown format {name!r}; known formats: {', '.join(f.name for f in ENCODABLE)}")
    return format


def widened(values: NDArray[Any]) -> NDArray[np.float32]:
    """f32 as it is, f16, or bf16 bits (uint16), as f32: exact."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)
