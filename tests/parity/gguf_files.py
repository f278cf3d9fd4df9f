"""GGUF files of any type, made from another by gguf-py's writer and llama.cpp's own block encoders."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from tests.parity.llama_cpp import Library

PLAIN = (Type.F32, Type.F16, Type.BF16)


def requantize(source: Path, target: Path, kind: Type, library: Library) -> Path:
    """`source` with every matrix that fits stored as `kind`; keys, vectors and the convolution as they are."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        if len(shape) != 2 or "conv1d" in tensor.name:
            writer.add_tensor(tensor.name, values.astype(np.float32))
        else:
            writer.add_tensor(tensor.name, encoded(values, kind, library), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def encoded(values: np.ndarray, kind: Type, library: Library) -> np.ndarray:
    if kind in PLAIN:
        return gguf.quantize(values, kind)
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return library.encode(values, int(kind), values.shape[1] // block_len * block_bytes)
