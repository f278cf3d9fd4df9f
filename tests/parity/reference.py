"""transformers as the reference: its own f32 run, and the same code with every cast to f32 made a cast to f64.

The library rounds to f32 inside norms, decay and delta rule whatever its weights are. Right for a user, wrong
for an oracle: so `exact` runs it with those casts widened. The rope angles are f32 by contract and taken from qwick's
table, which tests/model/test_rope.py compares with the library's on its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import DynamicCache, Qwen3_5ForCausalLM, Qwen3_5TextConfig
from transformers.models.qwen3_5 import modeling_qwen3_5 as library

from qwick.model.rope import RopeTable
from tests.checkpoints import Config

Ids = np.ndarray


@dataclass(frozen=True)
class Reference:
    """[tokens, vocab] and [tokens, hidden_size] (after the last norm) of one run over a whole sequence."""

    logits: Tensor
    hidden: Tensor


def text_config(config: Config) -> Qwen3_5TextConfig:
    text = config.get("text_config", config)
    return Qwen3_5TextConfig(**{k: v for k, v in text.items() if k not in ("dtype", "model_type")})


def load_tensors(folder: Path, prefix: str = "model.language_model.") -> dict[str, Tensor]:
    """The checkpoint as transformers names it: `model.` before the trunk, `mtp.` left alone."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            plain = name if name.startswith(("mtp.", "lm_head.")) else "model." + name.removeprefix(prefix)
            tensors[plain] = tensor.float()
    return tensors


def load_reference(config: Config, tensors: dict[str, Tensor]) -> Qwen3_5ForCausalLM:
    """The library's model with these weights, f32, eager attention."""
    text = text_config(config)
    text._attn_implementation = "eager"
    with torch.device("meta"):
        model = Qwen3_5ForCausalLM(text)
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith("mtp.")}
    if text.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    model.model.rotary_emb = library.Qwen3_5TextRotaryEmbedding(text)
    return model.eval()


@torch.no_grad()
def run_f32(model: Qwen3_5ForCausalLM, ids: Ids) -> Reference:
    """As a user runs it; the model is f32."""
    hidden = model.model(torch.as_tensor(ids, dtype=torch.long)[None], use_cache=False).last_hidden_state
    return Reference(model.lm_head(hidden)[0], hidden[0])


@torch.no_grad()
def run_f32_cached(model: Qwen3_5ForCausalLM, ids: Ids, prompt_len: int) -> Tensor:
    """Logits of a prompt, then token by token with the library's cache."""
    cache = DynamicCache(config=model.config)
    rows: list[Tensor] = []
    for begin, end in [(0, prompt_len), *((i, i + 1) for i in range(prompt_len, len(ids)))]:
        chunk = torch.as_tensor(ids[begin:end], dtype=torch.long)[None]
        hidden = model.model(chunk, past_key_values=cache, use_cache=True).last_hidden_state
        rows.append(model.lm_head(hidden)[0])
    return torch.cat(rows)


@torch.no_grad()
def run_exact(config: Config, tensors: dict[str, Tensor], ids: Ids, rope: RopeTable) -> Reference:
    """The library's code in f64 throughout, over `rope`'s angles."""
    angles = doubled(rope, np.arange(len(ids)))
    model = rounded_as_loaded(load_reference(config, tensors))
    model.model.rotary_emb.forward = lambda x, position_ids: angles
    with exact():
        hidden = model.model(torch.as_tensor(ids, dtype=torch.long)[None], use_cache=False).last_hidden_state
    return Reference(model.lm_head(hidden)[0], hidden[0])


@torch.no_grad()
def rounded_as_loaded(module: nn.Module) -> Any:
    """The module in f64, its weights as qwick holds them: 1 + w and exp(A_log) are rounded to f32 once, at load."""
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.double()
    for name, parameter in module.named_parameters():
        if name.endswith("A_log"):
            parameter.copy_(state[name].double().exp().float().double().log())
        elif "norm" in name and not name.endswith("linear_attn.norm.weight"):
            parameter.copy_((1 + state[name]).double() - 1)
    return module


def doubled(rope: RopeTable, positions: Ids) -> tuple[Tensor, Tensor]:
    """cos, sin as the library takes them, [1, tokens, rotary_dim]: each angle twice."""
    return tuple(torch.from_numpy(np.concatenate([x, x], axis=-1)).double()[None] for x in rope.angles(positions))


class _Widened:
    """The module torch with float32 spelt float64."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "float32" else getattr(torch, name)


@contextmanager
def exact() -> Iterator[None]:
    """Inside, the library's casts to f32 are casts to f64."""
    narrow = torch.Tensor.float
    library.torch, torch.Tensor.float = _Widened(), torch.Tensor.double
    try:
        yield
    finally:
        library.torch, torch.Tensor.float = torch, narrow


class MtpBlock(nn.Module):
    """The MTP block from the library's parts (which ignores `mtp.*`), in f64: facts page, section 7.

    x = fc([norm_e(embed(token p + 1)); norm_h(h_p)]); one gated-attention decoder layer; norm; the shared head.
    """

    def __init__(self, config: Config, tensors: dict[str, Tensor], rope: RopeTable) -> None:
        super().__init__()
        text = text_config(config)
        text._attn_implementation = "eager"
        text.layer_types = ["full_attention"]
        text.num_hidden_layers = 1
        hidden, eps = text.hidden_size, text.rms_norm_eps
        self.fc = nn.Linear(2 * hidden, hidden, bias=False)
        self.pre_fc_norm_embedding = library.Qwen3_5RMSNorm(hidden, eps)
        self.pre_fc_norm_hidden = library.Qwen3_5RMSNorm(hidden, eps)
        self.layers = nn.ModuleList([library.Qwen3_5DecoderLayer(text, 0)])
        self.norm = library.Qwen3_5RMSNorm(hidden, eps)
        own = {name.removeprefix("mtp."): t for name, t in tensors.items() if name.startswith("mtp.")}
        self.load_state_dict(own, strict=True)
        rounded_as_loaded(self)
        self.rope = rope
        self.embedding = tensors["model.embed_tokens.weight"].double()
        self.head = tensors["lm_head.weight"].double() if "lm_head.weight" in tensors else self.embedding

    @torch.no_grad()
    def draft(self, ids: Ids, hidden: Tensor, cache: DynamicCache | None = None, start: int = 0) -> Reference:
        """Row i: token ids[i] at place start + i + 1, hidden[i] of place start + i. `cache` holds the rows before."""
        count = len(ids)
        angles = doubled(self.rope, np.arange(start, start + count))
        mask = torch.full((count, start + count), -torch.inf, dtype=torch.float64).triu(start + 1)[None, None]
        with exact():
            embedding = self.pre_fc_norm_embedding(self.embedding[torch.as_tensor(ids, dtype=torch.long)])
            x = self.fc(torch.cat([embedding, self.pre_fc_norm_hidden(hidden.double())], dim=-1))[None]
            x = self.layers[0](x, position_embeddings=angles, attention_mask=mask, past_key_values=cache)
            out = self.norm(x)[0]
        return Reference(out @ self.head.T, out)
