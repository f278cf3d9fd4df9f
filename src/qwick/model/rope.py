"""Rotary angles on the host: partial, interleaved M-RoPE, rounded as the reference rounds."""

import numpy as np
from numpy.typing import NDArray

from qwick.model.config import ModelConfig
from qwick.ops.contract import Float32


class RopeTable:
    """cos and sin of position x inverse frequency, all in f32 as in transformers `Qwen3_5TextRotaryEmbedding`.

    Frequency i takes its position from the height row if i mod 3 = 1 and from the width row if i mod 3 = 2 (below three
    times that section's length), else from the time row. Text has three equal rows: plain rope.
    """

    def __init__(self, config: ModelConfig) -> None:
        dim = config.attention.rotary_dim
        exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
        self._inverse = np.float32(1) / np.power(np.float32(config.rope_theta), exponents)
        self._axis = np.zeros(dim // 2, np.int64)
        for axis in (1, 2):
            self._axis[axis : 3 * config.mrope_section[axis] : 3] = axis

    def angles(self, positions: NDArray[np.integer]) -> tuple[Float32, Float32]:
        """cos, sin [tokens, rotary_dim / 2] for positions [tokens] (text) or [3, tokens] (time, height, width)."""
        rows = positions.astype(np.float32)
        chosen = rows[:, None] if rows.ndim == 1 else rows[self._axis].T
        freqs = chosen * self._inverse
        return np.cos(freqs), np.sin(freqs)
