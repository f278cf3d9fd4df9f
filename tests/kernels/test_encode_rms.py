"""Our blocks lose no more than 1.01 times what llama.cpp's do (its encoders without importance matrix), in RMS.

LLAMA_CPP holds what it lost on the same values, so that this is tested without it; where it is installed, the table is
compared with it. `python -m tests.kernels.test_encode_rms` writes the table anew.
"""

import os
from collections.abc import Callable

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from qwick.formats import FORMATS, Format
from qwick.ops import native
from tests.parity.llama_cpp import Library, installed_library

SHAPE = (64, 1024)
FORMAT_NAMES = ("q4_0", "q4_k", "q5_k", "q6_k", "q8_0")


def _outliers(rng):
    values = rng.standard_normal(SHAPE)
    return np.where(rng.random(SHAPE) < 0.002, 30 * values, values)


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "normal": lambda rng: rng.standard_normal(SHAPE),
    "student_4": lambda rng: rng.standard_t(4, SHAPE),
    "student_2": lambda rng: rng.standard_t(2, SHAPE),
    "outliers": _outliers,
    "laplace": lambda rng: rng.laplace(size=SHAPE),
    "uniform": lambda rng: rng.uniform(-1, 1, SHAPE),
    "shifted": lambda rng: rng.standard_normal(SHAPE) + 1.5,
    "positive": lambda rng: np.abs(rng.standard_normal(SHAPE)),
    "uneven": lambda rng: rng.standard_normal(SHAPE) * np.exp(rng.standard_normal((64, 32))).repeat(32, 1),
    "sparse": lambda rng: rng.standard_normal(SHAPE) * (rng.random(SHAPE) < 0.2),
    "small": lambda rng: rng.standard_normal(SHAPE) * 1e-3,  # f16 scales below their normal range
}

LLAMA_CPP: dict[str, tuple[float, ...]] = {
    "normal": (0.0017205, 0.0014266, 0.00072056, 0.00035477, 0.00010673),
    "student_4": (0.0032613, 0.0024311, 0.0012328, 0.00063926, 0.00020411),
    "student_2": (0.0078218, 0.0056786, 0.0030105, 0.0017807, 0.0006525),
    "outliers": (0.0039475, 0.0030452, 0.001635, 0.001059, 0.00036922),
    "laplace": (0.0030492, 0.0024039, 0.0012167, 0.00061678, 0.00019276),
    "uniform": (0.00074985, 0.0006309, 0.00031938, 0.00015563, 4.3408e-05),
    "shifted": (0.0025563, 0.0014213, 0.00071434, 0.00053792, 0.00016143),
    "positive": (0.0016881, 0.00083813, 0.0004107, 0.00035241, 0.00010619),
    "uneven": (0.0046216, 0.0039513, 0.0019011, 0.00099141, 0.00029418),
    "sparse": (0.00055482, 0.00050945, 0.00033342, 9.7696e-05, 3.395e-05),
    "small": (1.7279e-06, 1.9811e-06, 1.012e-06, 2.0138e-05, 9.7224e-07),
}


def values_of(name: str) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=[7, list(DISTRIBUTIONS).index(name)]))
    return (DISTRIBUTIONS[name](rng) * 0.02).astype(np.float32)


def rms(values: np.ndarray, blocks: np.ndarray, format: Format) -> float:
    decoded = quants.dequantize(blocks, GGMLQuantizationType(format.ggml_type))
    return float(np.sqrt(np.square(decoded.astype(np.float64) - values).mean()))


def llama_cpps(library: Library, name: str) -> tuple[float, ...]:
    values = values_of(name)
    formats = [FORMATS[format_name] for format_name in FORMAT_NAMES]
    return tuple(rms(values, library.encode(values, f.ggml_type, f.num_bytes(1, 1024)), f) for f in formats)


@pytest.mark.parametrize("format_name", FORMAT_NAMES)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_error_is_at_most_llama_cpps(name, format_name):
    format, values = FORMATS[format_name], values_of(name)
    ours = rms(values, native.encode(values, format), format)
    theirs = LLAMA_CPP[name][FORMAT_NAMES.index(format_name)]
    assert ours <= (1.0001 if format_name == "q8_0" else 0.995) * theirs  # asked for: 1.01; q8_0 has no choice


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_table_is_llama_cpps(name):
    path = installed_library()
    if path is None or "QWICK_SANITIZED" in os.environ:
        pytest.skip("llama.cpp is not installed (xllamacpp), or would be run under the sanitizers")
    assert llama_cpps(Library(path), name) == pytest.approx(LLAMA_CPP[name], rel=1e-4)


if __name__ == "__main__":
    path = installed_library()
    assert path
    for name in DISTRIBUTIONS:
        print(f'    "{name}": ({", ".join(f"{error:.5g}" for error in llama_cpps(Library(path), name))}),')
