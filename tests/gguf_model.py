"""A hard-random checkpoint as a GGUF file, the way llama.cpp's converter makes one; written by gguf-py.

Names come from gguf-py's own table, transforms follow llama.cpp `conversion/qwen.py` (reshape and transpose of whole
tensors): nothing here knows qwick's tables.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

from tests.checkpoints import Config, planned_tensors

PREFIX = "model."
_MTP = {  # conversion/qwen.py `_QwenMtpMixin`, and the names of src/llama-arch.cpp
    "fc.weight": "nextn.eh_proj.weight",
    "pre_fc_norm_embedding.weight": "nextn.enorm.weight",
    "pre_fc_norm_hidden.weight": "nextn.hnorm.weight",
    "norm.weight": "nextn.shared_head_norm.weight",
}
TypeOf = Callable[[str, NDArray[np.float32]], Type]


def everything(kind: Type) -> TypeOf:
    """All matrices of one type, the rest F32."""
    return lambda name, values: kind if values.ndim == 2 and "conv1d" not in name else Type.F32


_F32 = everything(Type.F32)


def write_gguf(
    path: Path,
    config: Config,
    seed: int,
    type_of: TypeOf = _F32,
    *,
    mtp: bool = True,
    metadata: Callable[[gguf.GGUFWriter], None] | None = None,
    **writer_options: Any,
) -> Path:
    """The text network of `config` (released layout) -> `path`. `metadata` may add keys: a tokenizer, say."""
    text = config["text_config"]
    writer = gguf.GGUFWriter(path, "qwen35", **writer_options)
    add_config(writer, text, mtp=mtp)
    if metadata:
        metadata(writer)
    for name, values in gguf_tensors(text, seed, mtp=mtp):
        kind = type_of(name, values)
        if kind == Type.F32:
            writer.add_tensor(name, values)
        elif kind == Type.F16:
            writer.add_tensor(name, values.astype(np.float16))
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_config(writer: gguf.GGUFWriter, text: Config, *, mtp: bool) -> None:
    rope = text["rope_parameters"]
    linear = [kind == "linear_attention" for kind in text["layer_types"]]
    writer.add_block_count(len(linear) + mtp)
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_key_length(text["head_dim"])
    writer.add_value_length(text["head_dim"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(text["head_dim"] * rope["partial_rotary_factor"]))
    writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
    writer.add_ssm_conv_kernel(text["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(text["linear_key_head_dim"])
    writer.add_ssm_group_count(text["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(text["linear_num_value_heads"])
    writer.add_ssm_inner_size(text["linear_value_head_dim"] * text["linear_num_value_heads"])
    writer.add_uint32("qwen35.full_attention_interval", text["full_attention_interval"])
    writer.add_array("qwen35.attention.recurrent_layers", [*linear, *[False] * mtp])
    if mtp:
        writer.add_uint32("qwen35.nextn_predict_layers", 1)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer_json: dict[str, Any], num_ids: int) -> None:
    """As llama.cpp `conversion/base.py` `get_vocab_base` does: look-alikes of control tokens become such."""
    tokens = [f"[PAD{i}]" for i in range(num_ids)]
    types = [gguf.TokenType.UNUSED] * num_ids
    for text, i in tokenizer_json["model"]["vocab"].items():
        tokens[i], types[i] = text, gguf.TokenType.NORMAL
    for token in tokenizer_json["added_tokens"]:
        text, i = token["content"], token["id"]
        is_control = token["special"] or (text.startswith("<|") and text.endswith("|>"))
        tokens[i], types[i] = text, gguf.TokenType.CONTROL if is_control else gguf.TokenType.USER_DEFINED
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer_json["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen35")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    ids = {token["content"]: token["id"] for token in tokenizer_json["added_tokens"]}
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])


def gguf_tensors(text: Config, seed: int, *, mtp: bool = True) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """(GGUF name, values) of all tensors, as the converter turns them."""
    num_layers = text["num_hidden_layers"]
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN35, num_layers + mtp)
    for planned in planned_tensors(text, seed, PREFIX, mtp=mtp):
        values = np.concatenate(list(planned.chunks(seed))).reshape(planned.shape)
        name = planned.name
        if name.removeprefix("mtp.") in _MTP and name.startswith("mtp."):
            yield f"blk.{num_layers}.{_MTP[name.removeprefix('mtp.')]}", values + np.float32("norm" in name)
            continue
        name = name.replace("mtp.layers.0", f"{PREFIX}layers.{num_layers}").replace(".dt_bias", ".dt_proj.bias")
        stem, dot, ending = name.rpartition(".")
        stem, ending = (name, "") if ending == "A_log" else (stem, dot + ending)
        found = table.get_name(stem)
        assert found is not None, name
        yield found + ending, _changed(name, values, text)


def _changed(name: str, values: NDArray[np.float32], text: Config) -> NDArray[np.float32]:
    num_k, num_v = text["linear_num_key_heads"], text["linear_num_value_heads"]
    v_dim = text["linear_value_head_dim"]
    num_qk_rows = 2 * num_k * text["linear_key_head_dim"]

    def tiled(rows: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
        """[num_k, ratio, dim, ...] -> [ratio, num_k, dim, ...], flat."""
        split = rows.reshape(num_k, num_v // num_k, dim, *rows.shape[1:])
        return np.ascontiguousarray(split.swapaxes(0, 1)).reshape(rows.shape)

    if name.endswith("A_log"):
        return tiled(-np.exp(values.astype(np.float64)).astype(np.float32), 1)
    if name.endswith(("dt_proj.bias", "in_proj_a.weight", "in_proj_b.weight")):
        return tiled(values, 1)
    if name.endswith("in_proj_z.weight"):
        return tiled(values, v_dim)
    if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        values = values.reshape(len(values), -1)
        return np.concatenate([values[:num_qk_rows], tiled(values[num_qk_rows:], v_dim)])
    if name.endswith("out_proj.weight"):
        return np.ascontiguousarray(tiled(np.ascontiguousarray(values.T), v_dim).T)
    if name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        return values + np.float32(1)
    return values
