"""A GGUF file as an oracle sees it: gguf-py dequantises, what llama.cpp's converter did is undone, transformers runs.

Shares nothing with qwick's reader. From the dequantised f32 on values are f64, so that 1 + (w - 1) is the file's w.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwick.model.rope import RopeTable
from tests.checkpoints import Config
from tests.parity.reference import MtpBlock, Reference, load_reference, run_exact, run_f32

TRUNK = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_qkv.weight": "linear_attn.in_proj_qkv.weight",
    "attn_gate.weight": "linear_attn.in_proj_z.weight",
    "ssm_beta.weight": "linear_attn.in_proj_b.weight",
    "ssm_alpha.weight": "linear_attn.in_proj_a.weight",
    "ssm_conv1d.weight": "linear_attn.conv1d.weight",
    "ssm_a": "linear_attn.A_log",
    "ssm_dt.bias": "linear_attn.dt_bias",
    "ssm_norm.weight": "linear_attn.norm.weight",
    "ssm_out.weight": "linear_attn.out_proj.weight",
}
MTP = {
    "nextn.eh_proj.weight": "fc.weight",
    "nextn.enorm.weight": "pre_fc_norm_embedding.weight",
    "nextn.hnorm.weight": "pre_fc_norm_hidden.weight",
    "nextn.shared_head_norm.weight": "norm.weight",
}


@dataclass(frozen=True)
class Oracle:
    """tensors: HF names. run and draft in f64; where the tensors are f32 (large models), run in f32."""

    config: Config
    tensors: dict[str, Tensor]
    rope: RopeTable

    def run(self, ids: NDArray[np.integer]) -> Reference:
        if next(iter(self.tensors.values())).dtype == torch.float32:
            return run_f32(load_reference(self.config, self.tensors), ids)
        return run_exact(self.config, self.tensors, ids, self.rope)

    def draft(self, ids: NDArray[np.integer], hidden: Tensor) -> Reference:
        """Row i: token ids[i] joined to the hidden state of the place before it."""
        return MtpBlock(self.config, self.tensors, self.rope).draft(ids, hidden)


def open_oracle(path: Path, dtype: torch.dtype = torch.float64) -> Oracle:
    reader = gguf.GGUFReader(path)
    keys = {
        name.removeprefix("qwen35."): field.contents()
        for name, field in reader.fields.items()
        if name.startswith("qwen35.")
    }
    rows = {t.name: int(t.shape[-1]) for t in reader.tensors}
    config = hf_config(keys, rows)
    tensors = {name: torch.from_numpy(values).to(dtype) for name, values in hf_tensors(config, reader.tensors)}
    # What RopeTable reads of a ModelConfig.
    rope_config: Any = SimpleNamespace(
        attention=SimpleNamespace(rotary_dim=keys["rope.dimension_count"]),
        rope_theta=keys["rope.freq_base"],
        yarn=None,
        mrope_section=tuple(keys["rope.dimension_sections"][:3]),
    )
    return Oracle(config, tensors, RopeTable(rope_config))


def dequantized(tensor: gguf.ReaderTensor) -> NDArray[np.float64]:
    """gguf-py's f32 values, widened; its own shape is [rows, columns] already."""
    values = gguf.dequantize(tensor.data, tensor.tensor_type)
    return values.reshape(tuple(int(n) for n in reversed(tensor.shape))).astype(np.float64)


def hf_config(keys: dict[str, Any], rows: Mapping[str, int]) -> Config:
    num_mtp = keys.get("nextn_predict_layers", 0)
    num_layers, every = keys["block_count"] - num_mtp, keys.get("full_attention_interval", 4)
    head_dim, rotary = keys["attention.key_length"], keys["rope.dimension_count"]
    return {
        "vocab_size": rows["token_embd.weight"],
        "hidden_size": keys["embedding_length"],
        "intermediate_size": keys["feed_forward_length"],
        "num_hidden_layers": num_layers,
        "num_attention_heads": keys["attention.head_count"],
        "num_key_value_heads": keys["attention.head_count_kv"],
        "head_dim": head_dim,
        "linear_num_key_heads": keys["ssm.group_count"],
        "linear_num_value_heads": keys["ssm.time_step_rank"],
        "linear_key_head_dim": keys["ssm.state_size"],
        "linear_value_head_dim": keys["ssm.inner_size"] // keys["ssm.time_step_rank"],
        "linear_conv_kernel_dim": keys["ssm.conv_kernel"],
        "layer_types": [("linear", "full")[(i + 1) % every == 0] + "_attention" for i in range(num_layers)],
        "rms_norm_eps": float(np.float32(keys["attention.layer_norm_rms_epsilon"])),
        "tie_word_embeddings": "output.weight" not in rows,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": keys["rope.freq_base"],
            "partial_rotary_factor": rotary / head_dim,
            "mrope_interleaved": True,
            "mrope_section": list(keys["rope.dimension_sections"][:3]),
        },
    }


def hf_tensors(config: Config, tensors: Iterable[gguf.ReaderTensor]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """(name, values) in the released layout: rows and columns of V heads grouped again, norms without their 1."""
    num_layers = config["num_hidden_layers"]
    for tensor in tensors:
        name, values = tensor.name, dequantized(tensor)
        if name in TRUNK:
            yield TRUNK[name], values - 1 if name == "output_norm.weight" else values
            continue
        _, index, rest = name.split(".", 2)
        if rest in MTP:
            yield f"mtp.{MTP[rest]}", values - 1 if values.ndim == 1 else values
            continue
        hf_name = LAYER[rest]
        prefix = f"model.layers.{index}." if int(index) < num_layers else "mtp.layers.0."
        yield prefix + hf_name, undone(config, hf_name, values)


def undone(config: Config, hf_name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if hf_name.endswith("norm.weight"):
        return values if hf_name == "linear_attn.norm.weight" else values - 1
    if not hf_name.startswith("linear_attn."):
        return values
    kind = hf_name.removeprefix("linear_attn.").removesuffix(".weight")
    num_k, num_v = config["linear_num_key_heads"], config["linear_num_value_heads"]
    k_size, v_dim = num_k * config["linear_key_head_dim"], config["linear_value_head_dim"]
    if kind == "out_proj":
        return np.ascontiguousarray(grouped(values.T, num_k, num_v, v_dim).T)
    if kind in ("in_proj_qkv", "conv1d"):
        parts = (values[: 2 * k_size], grouped(values[2 * k_size :], num_k, num_v, v_dim))
        joined = np.concatenate(parts)
        return joined[:, None] if kind == "conv1d" else joined
    rows = grouped(values, num_k, num_v, v_dim if kind == "in_proj_z" else 1)
    return np.log(-rows) if kind == "A_log" else rows


def grouped(values: NDArray[np.float64], num_k: int, num_v: int, head_dim: int) -> NDArray[np.float64]:
    """Rows of V heads from tiled (head j serves key head j mod num_k) to grouped (j div ratio)."""
    heads = values.reshape(num_v // num_k, num_k, head_dim, *values.shape[1:])
    return np.ascontiguousarray(np.swapaxes(heads, 0, 1)).reshape(values.shape)
