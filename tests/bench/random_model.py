"""A small model with random weights in blocks of 256, for the tests of the bench."""

from pathlib import Path

from qwick.bench.random_weights import write_random
from qwick.model.config import ModelConfig, parse_config
from qwick.quantize.recipes import recipe_named
from tests.checkpoints import small_config

VOCAB_SIZE, LONGEST = 512, 8192


def small_shape() -> ModelConfig:
    """Rows of the matrices that matter divide into blocks of 256."""
    config = parse_config(small_config(hidden_size=256, intermediate_size=512))
    return config.resolved(tie_word_embeddings=True, has_mtp=True)


def write_small_random(path: Path, recipe: str = "Q4_K_M") -> Path:
    write_random(path, "small", small_shape(), recipe_named(recipe))
    return path
