"""`qwick inspect`: what a model's folder holds, without loading it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import typer

from qwick.cli.options import ModelName
from qwick.cli.terminal import one_line


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor of the network: where it is in the files, and how memory will hold it."""

    name: str
    file_name: str
    dtype: str
    shape: tuple[int, ...]
    family: str
    bytes: int  # in memory


def inspect(
    model: ModelName = "pocket",
    *,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show the config, the tensors by family, and what a token costs in memory."""
    from qwick.store import find_model

    folder = find_model(model)
    summary, rows = _read(folder)
    if as_json:
        listed = {"tensors": [asdict(row) for row in rows]} if tensors else {}
        typer.echo(json.dumps(summary | listed, indent=2))
        return
    for line in _lines(summary):
        typer.echo(one_line(line))
    if tensors:
        typer.echo("\ntensors")
        for row in rows:
            shape = " x ".join(map(str, row.shape))
            typer.echo(one_line(f"  {row.name:<44} {row.dtype:>5} -> {row.family:<5} {row.bytes:>14,}  [{shape}]"))


def _read(folder: Path) -> tuple[dict[str, Any], list[TensorRow]]:
    from qwick.cache.spec import CacheSpec
    from qwick.model.load import memory_format
    from qwick.model.source import open_source
    from qwick.text.chat_template import ChatTemplate

    with open_source(folder) as source:
        config = source.config
        rows: list[TensorRow] = []
        for spec in source.specs:
            info = source.info(spec)
            stored = memory_format(spec, info.dtype, None).family
            # Rows of the last dimension, as a [n, k] matrix.
            size = stored.num_bytes(prod(spec.shape[:-1]), spec.shape[-1])
            name = source.files[spec.name]
            rows.append(TensorRow(spec.name, name, info.dtype, spec.shape, stored.value, size))
        file_bytes = sum(info.num_bytes for info in source.checkpoint.tensors.values())
        template = ChatTemplate.open(folder, source.metadata, is_own=True)  # nothing is rendered
    cache = CacheSpec(config.cache_shape(num_pages=0, num_slots=0))
    summary = {
        "folder": str(folder),
        "config": asdict(config),
        "parameters": sum(prod(row.shape) for row in rows),
        "file_bytes": file_bytes,
        "memory_bytes": sum(row.bytes for row in rows),
        "families": _families(rows),
        "kv_bytes_per_token": cache.token_bytes,
        "state_bytes_per_sequence": cache.slot_bytes,
        "thinks_by_default": template.thinks_by_default(config.hidden_size),
        "chat_template_sha256": template.sha256,
    }
    return summary, rows


def _families(rows: list[TensorRow]) -> dict[str, dict[str, int]]:
    """Counts by family."""
    families: dict[str, dict[str, int]] = {}
    for row in rows:
        family = families.setdefault(row.family, {"tensors": 0, "parameters": 0, "bytes": 0})
        family["tensors"] += 1
        family["parameters"] += prod(row.shape)
        family["bytes"] += row.bytes
    return families


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    config = summary["config"]
    attention, delta = config["attention"], config["delta"]
    num_layers = len(config["layer_is_attention"])
    num_attention = sum(config["layer_is_attention"])
    mtp = ", and an MTP block" if config["has_mtp"] else ""
    tied = "shared with" if config["tie_word_embeddings"] else "beside"
    rows = {
        "model": summary["folder"],
        "layers": f"{num_layers}: {num_layers - num_attention} linear, {num_attention} attention{mtp}",
        "widths": f"hidden {config['hidden_size']:,}, MLP {config['intermediate_size']:,}",
        "attention": f"{attention['num_q']} query and {attention['num_kv']} KV heads of {attention['head_dim']}",
        "linear": f"{delta['num_k']} key heads of {delta['k_dim']}, {delta['num_v']} value heads of {delta['v_dim']}",
        "vocabulary": f"{config['vocab_size']:,}, embedding {tied} the head",
        "context": f"up to {config['max_position_embeddings']:,} tokens",
        "thinking": f"{'on' if summary['thinks_by_default'] else 'off'} unless asked",
        "files": _size(summary["file_bytes"]),
        "memory": f"{_size(summary['memory_bytes'])} for {summary['parameters']:,} parameters",
    }
    for name, family in summary["families"].items():
        count = f"{family['tensors']:,} tensors, {family['parameters']:,} parameters"
        rows[f"  {name}"] = f"{_size(family['bytes'])} for {count}"
    rows["a token"] = f"{summary['kv_bytes_per_token']:,} bytes of KV cache (f16)"
    rows["a sequence"] = f"{_size(summary['state_bytes_per_sequence'])} of recurrent state"
    return (f"{name:<11} {text}" for name, text in rows.items())


def _size(num_bytes: int) -> str:
    """Bytes in the unit that suits."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.2f} {unit}"
    return f"{num_bytes} bytes"
