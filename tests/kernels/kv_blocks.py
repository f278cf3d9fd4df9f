"""What the attention cache holds: values as each KV format rounds them, read back from a block's bytes."""

import numpy as np

KV_FORMATS = ("f32", "f16", "bf16", "q8_0")


def decoded(x, kv_format):
    """f32 rows after rounding to the format, in f64."""
    if kv_format == "f32":
        return x.astype(np.float64)
    if kv_format == "f16":
        return x.astype(np.float16).astype(np.float64)
    if kv_format == "bf16":
        bits = x.view(np.uint32).astype(np.uint64)
        rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32)
        return rounded.view(np.float32).astype(np.float64)
    groups = x.reshape(*x.shape[:-1], -1, 32)
    scales = (np.abs(groups).max(-1, keepdims=True) / np.float32(127)).astype(np.float16).astype(np.float32)
    codes = np.divide(groups, scales, out=np.zeros_like(groups), where=scales > 0)
    return (np.clip(np.rint(codes), -127, 127).astype(np.float64) * scales).reshape(x.shape)


def read_block(block, kv_format, head_dim, *, values):
    """The 64 rows of a block of keys or values, as kernels/attention/kv_block.h lays them out, in f64."""
    if kv_format == "q8_0":
        return _read_groups(block, head_dim, values=values)
    if kv_format == "bf16":
        held = (block.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        held = block.view(np.float32 if kv_format == "f32" else np.float16)
    if values:
        return held.reshape(-1, 64, 16).transpose(1, 0, 2).reshape(64, head_dim).astype(np.float64)
    return held.reshape(4, head_dim, 16).transpose(0, 2, 1).reshape(64, head_dim).astype(np.float64)


def _read_groups(block, head_dim, *, values):
    keys = 64 if values else 16
    groups = block.reshape(-1, 34 * keys)
    scales = np.ascontiguousarray(groups[:, : 2 * keys]).view(np.float16).astype(np.float64)
    codes = groups[:, 2 * keys :].view(np.int8).astype(np.float64)
    if values:  # [group][half][pair of keys][dim][key]
        rows = codes.reshape(-1, 2, 32, 16, 2).transpose(2, 4, 0, 1, 3).reshape(64, -1, 32) * scales.T[:, :, None]
        return rows.reshape(64, head_dim)
    # [tile][group][pair of dims][key][dim]
    codes = codes.reshape(4, -1, 16, 16, 2).transpose(0, 3, 1, 2, 4).reshape(64, -1, 32)
    scales = scales.reshape(4, -1, 16).transpose(0, 2, 1).reshape(64, -1)
    return (codes * scales[:, :, None]).reshape(64, head_dim)
