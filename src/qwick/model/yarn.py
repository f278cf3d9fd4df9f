"""YaRN: rotary frequencies for contexts longer than a network was trained for (arXiv:2309.00071).

Static, as the cards of Qwen3.5-4B and -9B describe it: every text is read with the same frequencies, short ones too.
"""

import math
from dataclasses import dataclass

import numpy as np

from qwick.ops.contract import Float32

MOST_TOKENS = 1_010_000  # that the cards speak of at factor 4; 4 x 262,144 would be a little more
MOST_FACTOR = 64.0  # that a file may ask for
ASKED_FACTORS = (1.0, 4.0)  # above the first, up to the second, when a caller asks
CLAIMED_BY = (2560, 4096)  # hidden sizes of 4B and 9B; the cards of 0.8B and 2B say "262,144 natively" and no more


def rotary_periods(theta: float, dim: int) -> Float32:
    """[dim / 2] positions a radian: theta ** (2i / dim), the f32 that is nearest.

    Not in f32 from the start: numpy's power of f32 is off by an ulp where it has AVX-512, which far positions make much
    of (0.008 of cos at 262,144).
    """
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    return np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Yarn:
    """What transformers calls `rope_parameters` of the type `yarn`, with its defaults (`_compute_yarn_parameters`).

    factor            how much longer contexts become; at least 1
    original_len      tokens that the network was trained for
    attention_factor  of cos and sin; None: 0.1 ln(factor) + 1
    beta_fast/slow    frequencies that turn more often than this in `original_len` tokens stay as they are, and those
                      that turn less often than that become `factor` times slower; between them a ramp
    truncate          whether the ramp begins and ends at whole frequencies
    """

    factor: float
    original_len: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    @property
    def magnitude(self) -> float:
        """What cos and sin are multiplied by."""
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1

    def longest(self, claimed: int) -> int:
        """Most tokens of a context, where a config claims `claimed`: it may speak of before or after scaling."""
        return max(claimed, min(int(self.factor * self.original_len), MOST_TOKENS))

    def inverse_frequencies(self, theta: float, dim: int) -> Float32:
        """[dim / 2] radians a position, rounded to f32 where the reference rounds."""
        periods = rotary_periods(theta, dim)
        kept, slowed = np.float32(1) / periods, np.float32(1) / (np.float32(self.factor) * periods)
        low, high = self._ramp(theta, dim)
        ramp = (np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
        of_kept = np.float32(1) - np.clip(ramp, np.float32(0), np.float32(1))
        return (slowed * (np.float32(1) - of_kept) + kept * of_kept).astype(np.float32, copy=False)

    def _ramp(self, theta: float, dim: int) -> tuple[float, float]:
        """The frequencies, by index, between which it goes from kept to slowed."""

        def index(turns: float) -> float:
            return dim * math.log(self.original_len / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low, high = index(self.beta_fast), index(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        return low, high + 0.001 if low == high else high
