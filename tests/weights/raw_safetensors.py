"""Safetensors files byte by byte, right or wrong as asked, and the official reader's opinion of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from qwick.weights.safetensors import SafetensorsFile

STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def file_bytes(header: bytes | str | dict[str, Any], data: bytes = b"") -> bytes:
    """Length, header (JSON if a dict), data."""
    if isinstance(header, dict):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode("utf-8", "surrogatepass")
    return len(header).to_bytes(8, "little") + header + data


def of_tensors(tensors: dict[str, tuple[str, NDArray[Any]]]) -> bytes:
    """A right file of name -> (dtype, values as stored)."""
    header: dict[str, Any] = {}
    data = b""
    for name, (dtype, values) in tensors.items():
        begin, data = len(data), data + np.ascontiguousarray(values, STORED[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [begin, len(data)]}
    return file_bytes(header, data)


def official(content: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    """name -> (dtype, shape, data) as the official reader sees the file; None when it refuses."""
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError:
        return None
    return {name: (e["dtype"], list(e["shape"]), bytes(e["data"])) for name, e in entries}


def ours(path: Path, content: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    """The same of ours; raises what it raises. Values of dtypes that are not read are left out (b"")."""
    path.write_bytes(content)
    file = SafetensorsFile(path)
    try:
        seen: dict[str, tuple[str, list[int], bytes]] = {}
        for name, info in file.tensors.items():
            data = b""
            if info.dtype in STORED:
                values = file.read(name, 0, info.shape[0] if info.shape else 1)
                data = values.astype(STORED[info.dtype]).tobytes()
            seen[name] = (info.dtype, list(info.shape), data)
        return seen
    finally:
        file.close()
