"""A hard-random model with a tokenizer, in a folder: answers nonsense, but always the same."""

from pathlib import Path

from tests.checkpoints import small_config, write_checkpoint
from tests.text.tokenizer_folder import write_folder

LONGEST = 8192  # its max_position_embeddings


def write_small_model(folder: Path) -> Path:
    """config.json, model.safetensors, tokenizer.json; no chat template, no generation_config."""
    write_checkpoint(folder, small_config(), seed=1)
    return write_folder(folder)
