"""A model of a released size with random weights, as a GGUF file: speeds are measured without a download.

Blocks are drawn as files hold them, not encoded from values: any bytes are valid quants, and the scales are set so that
weights have the standard deviation `_WEIGHT_STD` and a mean near zero. Written once into the store, in a hidden folder.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qwick.bench.sizes import SIZES, size_config
from qwick.errors import UsageError
from qwick.formats import BF16, F16, F32, Q4_0, Q4_K, Q5_K, Q6_K, Q8_0, Format
from qwick.model.config import ModelConfig
from qwick.model.names import TensorSpec
from qwick.model.names_gguf import gguf_specs
from qwick.quantize.metadata import ARCHITECTURE, file_keys, network_keys, size_label
from qwick.quantize.recipes import Recipe, recipe_named
from qwick.quantize.vocabulary import TokenType
from qwick.store import models_folder
from qwick.weights.gguf_writer import NewTensor, Value, check_writable, write_gguf

FOLDER = ".random"  # in the store; a hidden folder is no entry of it
VERSION = 1  # of what is drawn: another one makes new files
_WEIGHT_STD = 0.03  # about 1 / sqrt(1024): what a matrix does to a normed vector stays near 1
_PIECE_BYTES = 8 << 20

WriteProgress: TypeAlias = Callable[[int, int], None]
"""(bytes written so far, bytes in all)"""


@dataclass(frozen=True, slots=True)
class _Scales:
    """Where a block's f16 scales lie, and their values for weights of standard deviation 1. In between: any bytes."""

    places: tuple[tuple[int, float], ...]  # (first byte, value)


# w = d (q - 8) | d q | d sc q - dmin m | d sc (q - 32), q, sc and m uniform; dmin so that the mean is zero.
_SCALES = {
    Q4_0.name: _Scales(((0, 1 / 4.6),)),
    Q8_0.name: _Scales(((0, 1 / 73),)),
    Q4_K.name: _Scales(((0, 1 / 258), (2, 7.5 / 258))),
    Q5_K.name: _Scales(((0, 1 / 527), (2, 15.5 / 527))),
    Q6_K.name: _Scales(((208, 1 / 1366),)),
}


def random_path(size: str, recipe: str) -> Path:
    """Where the GGUF file of one of `SIZES` in a recipe's formats is, or will be. Raises UsageError."""
    if size not in SIZES:
        raise UsageError(f"there is no size {size!a:.40}; the released ones are {', '.join(SIZES)}")
    return models_folder() / FOLDER / f"{size.replace(':', '-')}-{recipe_named(recipe).name}-{VERSION}.gguf"


def random_model(size: str, recipe: str, progress: WriteProgress | None = None) -> Path:
    """The file of `random_path`; written if it is not there yet.

    Raises UsageError for unknown names and where it cannot be written, CapacityError when the disk is too small.
    """
    path = random_path(size, recipe)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make {path.parent} ({error.strerror}); set QWICK_MODELS to a folder you own"
        ) from None
    # Whoever else writes the same file writes the same bytes: the last one to finish replaces the other's.
    write_random(path, f"{size} random", size_config(size), recipe_named(recipe), overwrite=True, progress=progress)
    return path


def write_random(
    path: Path,
    name: str,
    config: ModelConfig,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    progress: WriteProgress | None = None,
) -> int:
    """Write a random model of any shape -> bytes. `config` is resolved (tying and MTP are known)."""
    check_writable(path, overwrite=overwrite)
    formats = recipe.formats(config)
    specs = list(gguf_specs(config))
    total = sum(formats.get(s.name, F32).num_bytes(prod(s.shape[:-1]), s.shape[-1]) for s in specs)
    done = 0

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if progress:
            progress(done, total)

    tensors = [_tensor(spec, formats.get(spec.name, F32), advance) for spec in specs]
    metadata = _metadata(name, config, recipe, sum(prod(spec.shape) for spec in specs))
    return write_gguf(path, metadata, tensors, overwrite=overwrite)


def _metadata(name: str, config: ModelConfig, recipe: Recipe, num_parameters: int) -> dict[str, Value]:
    """With a vocabulary of the right length: a peer refuses a file without one. Bytes, one merge, and placeholders."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    merge = alphabet[:2]
    placeholders = (f"<{i}>" for i in range(len(alphabet) + 1, config.vocab_size))
    tokens = [*alphabet, "".join(merge), *placeholders]
    types = np.full(config.vocab_size, TokenType.NORMAL, np.int32)
    types[-1] = TokenType.CONTROL
    return {
        "general.architecture": ARCHITECTURE,
        "general.type": "model",
        "general.name": name,
        "general.size_label": size_label(num_parameters),
        **network_keys(config),
        **file_keys(recipe),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen35",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(merge)],
        "tokenizer.ggml.eos_token_id": config.vocab_size - 1,
        "tokenizer.ggml.add_bos_token": False,
    }


def _tensor(spec: TensorSpec, format: Format, advance: Callable[[int], None]) -> NewTensor:
    """The same bytes each time: the stream depends on the tensor's name alone."""
    rng = np.random.default_rng([VERSION, zlib.crc32(spec.name.encode())])
    if not spec.matrix:
        return NewTensor(spec.file_name, spec.shape, F32, lambda: [_vector(spec, rng)])

    def pieces() -> Iterator[NDArray[Any]]:
        rows, cols = spec.shape
        most = max(1, _PIECE_BYTES // format.num_bytes(1, cols))
        for first in range(0, rows, most):
            count = min(most, rows - first)
            yield random_rows(rng, format, count, cols)
            advance(format.num_bytes(count, cols))

    return NewTensor(spec.file_name, spec.shape, format, pieces)


def _vector(spec: TensorSpec, rng: np.random.Generator) -> NDArray[np.float32]:
    """In the GGUF form: norms are factors, `ssm_a` the decay -exp(A_log)."""
    values = rng.standard_normal(spec.shape, np.float32)
    if spec.name.endswith("A_log"):
        return -np.exp(values)
    if spec.name.endswith(("conv1d", "dt_bias")):
        return values
    return 1 + values * np.float32(0.1)


def random_rows(rng: np.random.Generator, format: Format, rows: int, cols: int) -> NDArray[Any]:
    """[rows, cols] weights as a file of `format` holds them: floats, bf16 bits, or blocks as bytes [rows, row_bytes].

    Raises UsageError for a format that is not drawn.
    """
    if format is F32:
        return rng.standard_normal((rows, cols), np.float32) * np.float32(_WEIGHT_STD)
    num_bytes = format.num_bytes(rows, cols)
    drawn = np.frombuffer(bytearray(rng.bytes(num_bytes)), np.uint8)
    if format in (BF16, F16):
        # Sign and mantissa are any bits, the exponent is one of four: magnitudes 2^-7 to 2^-3.
        free, lowest = (0x81FF, 120 << 7) if format is BF16 else (0x8FFF, 8 << 10)
        return (drawn.view(np.uint16) & np.uint16(free) | np.uint16(lowest)).reshape(rows, cols)
    if format.name not in _SCALES:
        raise UsageError(f"random weights of {format.name} are not made; give one of {', '.join(_SCALES)}")
    blocks = drawn.reshape(-1, format.block_bytes)
    if format is Q8_0:
        quants = blocks[:, 2:]
        quants[quants == 0x80] = 0  # -128 is in no file: kernels may count on -127 .. 127
    for place, value in _SCALES[format.name].places:
        scale = np.array([value * _WEIGHT_STD], np.float16)
        blocks[:, place : place + 2] = scale.view(np.uint8)
    return drawn.reshape(rows, -1)
