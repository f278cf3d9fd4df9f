"""Rotary angles on the host: partial, interleaved M-RoPE, rounded as the reference rounds."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from qwick.model.config import ModelConfig
from qwick.model.yarn import rotary_periods
from qwick.ops.contract import Float32

_BLOCK_LEN = 64  # positions computed together, 16 KB with 64 rotary dimensions
_MAX_BLOCKS = 1024


class RopeTable:
    """cos and sin of position x inverse frequency, all in f32 as in transformers `Qwen3_5TextRotaryEmbedding`.

    With YaRN other frequencies (model/yarn.py), and cos and sin times its attention factor.

    Frequency i takes its position from the height row if i mod 3 = 1 and from the width row if i mod 3 = 2 (below three
    times that section's length), else from the time row. Text has three equal rows: plain rope.
    """

    def __init__(self, config: ModelConfig) -> None:
        dim = config.attention.rotary_dim
        self._inverse = np.float32(1) / rotary_periods(config.rope_theta, dim)
        self._magnitude = np.float32(1)
        if config.yarn:
            self._inverse = config.yarn.inverse_frequencies(config.rope_theta, dim)
            self._magnitude = np.float32(config.yarn.magnitude)
        self._axis = np.zeros(dim // 2, np.int64)
        for axis in (1, 2):
            self._axis[axis : 3 * config.mrope_section[axis] : 3] = axis
        self._blocks: dict[int, tuple[Float32, Float32]] = {}  # by position // _BLOCK_LEN

    def angles(self, positions: NDArray[np.integer]) -> tuple[Float32, Float32]:
        """cos, sin [tokens, rotary_dim / 2] for positions [tokens] (text) or [3, tokens] (time, height, width)."""
        rows = positions.astype(np.float32)
        chosen = rows[:, None] if rows.ndim == 1 else rows[self._axis].T
        freqs = chosen * self._inverse
        return np.cos(freqs) * self._magnitude, np.sin(freqs) * self._magnitude

    def text_angles(self, spans: Sequence[range]) -> tuple[Float32, Float32]:
        """The same bits for the positions of text in `spans`, from blocks that stay: a decode step computes nothing.

        Not to be written to.
        """
        parts = [part for span in spans for part in self._parts(span)]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([cos for cos, _ in parts]), np.concatenate([sin for _, sin in parts])

    def _parts(self, span: range) -> Iterator[tuple[Float32, Float32]]:
        begin = span.start
        while begin < span.stop:
            index, first = divmod(begin, _BLOCK_LEN)
            last = min(first + span.stop - begin, _BLOCK_LEN)
            cos, sin = self._block(index)
            yield cos[first:last], sin[first:last]
            begin += last - first

    def _block(self, index: int) -> tuple[Float32, Float32]:
        block = self._blocks.get(index)
        if block is None:
            if len(self._blocks) == _MAX_BLOCKS:
                self._blocks.clear()
            begin = index * _BLOCK_LEN
            block = self._blocks[index] = self.angles(np.arange(begin, begin + _BLOCK_LEN))
        return block
