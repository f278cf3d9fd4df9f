"""The model folder in the Hugging Face layout: config, tokenizer, template, generation defaults, weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from recipes.pocket.network import TEXT_CONFIG
from recipes.pocket.rendering import END, PAD
from recipes.pocket.tokenizer import ADDED_TOKENS

TEMPLATE_FILE = Path(__file__).parent / "chat_template.jinja"


def config_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """As the released files, nested, without the vision part."""
    ids = {
        "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
    }  # fmt: skip
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        **{key: tokenizer.token_to_id(token) for key, token in ids.items()},
        "tie_word_embeddings": True,
        "text_config": {**TEXT_CONFIG, "eos_token_id": tokenizer.token_to_id(PAD)},
    }


def tokenizer_config_json(tokenizer: Tokenizer) -> dict[str, Any]:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {
        str(tokenizer.token_to_id(text)): {"content": text, **plain, "special": special}
        for text, special in ADDED_TOKENS
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "errors": "replace",
        "model_max_length": TEXT_CONFIG["max_position_embeddings"],
        "pad_token": PAD,
        "split_special_tokens": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }


def generation_config_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """Greedy, no penalties: its answers are short and have one right form."""
    return {
        "do_sample": False,
        "eos_token_id": [tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)],
        "pad_token_id": tokenizer.token_to_id(PAD),
    }


def write_folder(folder: Path, tokenizer: Tokenizer, tensors: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in {
        "config.json": config_json(tokenizer),
        "tokenizer_config.json": tokenizer_config_json(tokenizer),
        "generation_config.json": generation_config_json(tokenizer),
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE_FILE.read_text())
    weights = folder / "model.safetensors"
    save_file(dict(tensors), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes it private; it goes into the wheel
