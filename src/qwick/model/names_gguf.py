"""The same tensors as a GGUF file of architecture `qwen35` calls them.

The canonical form is the GGUF one, so nothing is permuted and nothing is added: only names and the convolution's shape
differ from `names.py`. Source: llama.cpp `conversion/qwen.py` and `src/models/qwen35.cpp`.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final

from qwick.errors import CheckpointError
from qwick.model.config import ModelConfig
from qwick.model.names import Change, TensorSpec, tensor_specs
from qwick.weights.checkpoint import named

_OUTSIDE: Final = {
    "embed_tokens": "token_embd.weight",
    "norm": "output_norm.weight",
    "lm_head": "output.weight",
}
_IN_BLOCK: Final = {  # after `layers.N.` and `blk.N.`
    "input_layernorm": "attn_norm.weight",
    "post_attention_layernorm": "post_attention_norm.weight",
    "mlp.gate_proj": "ffn_gate.weight",
    "mlp.up_proj": "ffn_up.weight",
    "mlp.down_proj": "ffn_down.weight",
    "self_attn.q_proj": "attn_q.weight",
    "self_attn.k_proj": "attn_k.weight",
    "self_attn.v_proj": "attn_v.weight",
    "self_attn.o_proj": "attn_output.weight",
    "self_attn.q_norm": "attn_q_norm.weight",
    "self_attn.k_norm": "attn_k_norm.weight",
    "linear_attn.in_proj_qkv": "attn_qkv.weight",
    "linear_attn.in_proj_z": "attn_gate.weight",
    "linear_attn.in_proj_b": "ssm_beta.weight",
    "linear_attn.in_proj_a": "ssm_alpha.weight",
    "linear_attn.conv1d": "ssm_conv1d.weight",
    "linear_attn.dt_bias": "ssm_dt.bias",
    "linear_attn.A_log": "ssm_a",
    "linear_attn.norm": "ssm_norm.weight",
    "linear_attn.out_proj": "ssm_out.weight",
}
_IN_MTP: Final = {  # after `mtp.`; the block's number is that of the layer after the trunk's last
    "fc": "nextn.eh_proj.weight",
    "pre_fc_norm_embedding": "nextn.enorm.weight",
    "pre_fc_norm_hidden": "nextn.hnorm.weight",
    "norm": "nextn.shared_head_norm.weight",
}
_MTP_LAYER = "mtp.layers.0."


def gguf_name(name: str, num_layers: int) -> str:
    """The name in a GGUF file of the canonical tensor `name` in a trunk of `num_layers` layers."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    if name.startswith(_MTP_LAYER):
        return f"blk.{num_layers}.{_IN_BLOCK[name.removeprefix(_MTP_LAYER)]}"
    if name.startswith("mtp."):
        return f"blk.{num_layers}.{_IN_MTP[name.removeprefix('mtp.')]}"
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{_IN_BLOCK[rest]}"


def gguf_specs(config: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor in canonical order, under its GGUF name and in its GGUF shape."""
    for spec in tensor_specs(config):
        shape = (spec.shape[0], spec.shape[-1]) if len(spec.shape) == 3 else spec.shape  # the convolution
        name = gguf_name(spec.name, config.num_layers)
        yield replace(spec, file_name=name, shape=shape, change=Change.NONE, row_order=None, col_order=None)


def gguf_file_names(specs: Collection[TensorSpec], names: Collection[str]) -> dict[str, str]:
    """Canonical name -> name in the file.

    Raises CheckpointError naming tensors that are missing, or that nothing would read.
    """
    found = {spec.name: spec.file_name for spec in specs}
    if "mtp.norm" in found and found["mtp.norm"] not in names:
        found["mtp.norm"] = _OUTSIDE["norm"]  # as llama.cpp does
    missing = [name for name in found.values() if name not in names]
    if missing:
        raise CheckpointError(f"{len(missing)} tensors are missing: {named(missing)}")
    unmapped = sorted(set(names) - set(found.values()) - {_OUTSIDE["lm_head"]})
    own = [name for name in unmapped if name.endswith(("nextn.embed_tokens.weight", "nextn.shared_head_head.weight"))]
    if own:
        raise CheckpointError(f"{named(own)}: an MTP block with an embedding or head of its own is not implemented")
    if unmapped:
        raise CheckpointError(f"{len(unmapped)} tensors have no place in this network: {named(unmapped)}")
    return found
