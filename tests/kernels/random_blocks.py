"""Random weights of every format, as a file holds them."""

import numpy as np

from qwick.formats import FORMATS, MXFP4, Format

BLOCK_FORMATS = {name: f for name, f in FORMATS.items() if f.is_blocks}

# Where the f16 scales lie in a block; else at 0.
_HALVES = {"q2_k": (80, 82), "q3_k": (108,), "q6_k": (208,), "mxfp4": ()}
_HALVES |= dict.fromkeys(("q4_1", "q5_1", "q4_k", "q5_k"), (0, 2))


def random_blocks(rng, format: Format, rows: int, cols: int, *, tame: bool = False):
    """uint8 [rows, row_bytes]: random bits, but f16 scales finite. `tame`: scales of one size, as weights have them."""
    blocks = rng.integers(0, 256, (rows, cols // format.block_len, format.block_bytes), dtype=np.uint8)
    for at in _HALVES.get(format.name, (0,)):
        halves = np.ascontiguousarray(blocks[..., at : at + 2]).view(np.uint16)
        if tame:
            halves = halves & 0x83FF | 0x2400  # 2^-6 to 2^-5, both signs
        else:
            halves[(halves & 0x7C00) == 0x7C00] ^= 0x4000  # infinities and NaNs
        blocks[..., at : at + 2] = halves.view(np.uint8)
    if format is MXFP4:  # the scale is 2^(e - 128): no f32 subnormal, which threads flush, and no infinite product
        exponents = blocks[..., 0]
        blocks[..., 0] = 120 + exponents % 4 if tame else np.clip(exponents, 2, 250)
    return blocks.reshape(rows, -1)


def rows_with_a_nan(format):
    """16 x 512, of blocks or in bf16; row 3 has a NaN among its last values, or for the scale of its last block."""
    if format.is_blocks:
        rows = random_blocks(np.random.default_rng(4), format, 16, 512)
        rows[3, -format.block_bytes : -format.block_bytes + 2] = (0x00, 0x7E)
    else:
        rows = np.full((16, 512), 0x3F80, np.uint16)
        rows[3, 400] = 0x7FC0
    return rows
