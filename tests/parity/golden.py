"""The checkpoint behind tests/golden/every_type.gguf; benchmarks/peers/make_golden.py gives it to llama.cpp's tools."""

from pathlib import Path

from tests.checkpoints import small_config, write_checkpoint
from tests.text.tokenizer_folder import make_backend, write_folder

GOLDEN = Path(__file__).parents[1] / "golden" / "every_type.gguf"
SEED = 2026
CONFIG = {
    "vocab_size": 288,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "full_attention_interval": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "partial_rotary_factor": 0.5,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def write_golden_folder(folder: Path) -> Path:
    """BF16 safetensors, config, tokenizer and template."""
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": TEMPLATE,
    }
    write_folder(folder, tokenizer_config=tokenizer_config)
    end = make_backend().token_to_id("<|endoftext|>")
    return write_checkpoint(folder, small_config(**CONFIG, eos_token_id=end), SEED, "BF16")
