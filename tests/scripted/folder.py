"""A folder that opens as a model and whose weights nobody will read: real tokenizer and template, hollow tensors."""

import json
from pathlib import Path

from tests.checkpoints import planned_tensors, small_config, write_header
from tests.text.official_vocabulary import FIRST_ADDED_ID, write_official_folder

TEMPLATES = Path(__file__).parents[1] / "text" / "templates"
VOCAB_SIZE = 248_320
CONTEXT_LEN = 16_384


def write_hollow_checkpoint(folder: Path, vocab_size: int, end: int = 0) -> Path:
    """config.json (`end`: its eos_token_id), and safetensors whose header is written: the rest is a hole."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"vocab_size": vocab_size, "num_hidden_layers": 2, "full_attention_interval": 2}
    config = small_config(**sizes, max_position_embeddings=CONTEXT_LEN, eos_token_id=end)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = planned_tensors(config["text_config"], 0, "model.language_model.", mtp=False)
    with (folder / "model.safetensors").open("wb") as file:
        write_header(file, tensors)
        file.truncate(file.tell() + sum(tensor.num_bytes for tensor in tensors))
    return folder


def write_official_scripted_folder(folder: Path) -> Path:
    """With the official vocabulary and the chat template of 4B, which thinks unless told otherwise. Takes seconds."""
    write_hollow_checkpoint(folder, VOCAB_SIZE, FIRST_ADDED_ID)
    return write_official_folder(folder, (TEMPLATES / "qwen3.5_4b_9b.jinja").read_text(encoding="utf-8"))
