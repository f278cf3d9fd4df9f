"""`qwick inspect`: what a model's files hold and what running them costs, without loading them."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwick.cli.options import ModelName
from qwick.cli.tables import count_text, size_text
from qwick.cli.terminal import one_line
from qwick.errors import UsageError
from qwick.store import find_model

if TYPE_CHECKING:
    from qwick.describe import Description
    from qwick.model.yarn import Yarn

DEPTH = 4096  # tokens before the one whose cost is told, when not said otherwise


def inspect(
    model: ModelName = "pocket",
    *,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    ctx_size: Annotated[
        int | None, typer.Option(metavar="N", help=f"Tokens before the one whose cost is told; {DEPTH} when left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show the config, the tensors by kernel family, and what a token costs in bytes and operations."""
    from qwick.describe import describe

    described = describe(find_model(model))
    longest = described.config.max_position_embeddings
    depth = min(DEPTH, longest) if ctx_size is None else ctx_size
    if not 0 <= depth <= longest:
        raise UsageError(f"--ctx-size is {depth}; this model takes 0 to {longest:,} tokens")
    if as_json:
        listed = {"tensors": [asdict(row) for row in described.tensors]} if tensors else {}
        typer.echo(json.dumps(_object(described, depth) | listed, indent=2))
        return
    for line in _lines(described, depth):
        typer.echo(one_line(line))
    if tensors:
        typer.echo("\ntensors")
        for line in _tensor_lines(described):
            typer.echo(one_line(line))


def _object(model: "Description", depth: int) -> dict[str, Any]:
    cost = model.token_cost(depth)
    return {
        "path": str(model.path),
        "format": model.mixture,
        "config": asdict(model.config),
        "parameters": model.parameters,
        "file_bytes": model.file_bytes,
        "memory_bytes": model.memory_bytes,
        "families": model.families,
        "kv_bytes_per_token": model.cache.token_bytes,
        "kv_bytes_per_token_by_format": _kv_bytes(model),
        "state_bytes_per_sequence": model.cache.slot_bytes,
        "token_cost": asdict(cost) | {"total_bytes": cost.total_bytes},
        "thinks_by_default": model.thinks_by_default,
        "chat_template_sha256": model.template_sha256,
    }


def _kv_bytes(model: "Description") -> dict[str, int]:
    from qwick.cache.spec import CacheSpec
    from qwick.ops.contract import KV_FORMATS

    shape = model.cache.shape
    return {kv_format: CacheSpec(replace(shape, kv_format=kv_format)).token_bytes for kv_format in KV_FORMATS}


def _lines(model: "Description", depth: int) -> Iterator[str]:
    config, cost = model.config, model.token_cost(depth)
    attention, delta = config.attention, config.delta
    num_delta = config.num_layers - config.num_attention_layers
    mtp = ", and an MTP block" if config.has_mtp else ""
    tied = "shared with" if config.tie_word_embeddings else "beside"
    rows = {
        "model": str(model.path),
        "layers": f"{config.num_layers}: {num_delta} linear, {config.num_attention_layers} attention{mtp}",
        "widths": f"hidden {config.hidden_size:,}, MLP {config.intermediate_size:,}",
        "attention": f"{attention.num_q} query and {attention.num_kv} KV heads of {attention.head_dim}",
        "linear": f"{delta.num_k} key heads of {delta.k_dim}, {delta.num_v} value heads of {delta.v_dim}",
        "vocabulary": f"{config.vocab_size:,}, embedding {tied} the head",
        "context": f"up to {config.max_position_embeddings:,} tokens{_scaling(config.yarn)}",
        "thinking": f"{'on' if model.thinks_by_default else 'off'} unless asked",
        "files": f"{size_text(model.file_bytes)} in {model.mixture}",
        "memory": f"{size_text(model.memory_bytes)} for {model.parameters:,} parameters",
    }
    for name, family in model.families.items():
        count = f"{family['tensors']:,} tensors, {family['parameters']:,} parameters"
        rows[f"  {name}"] = f"{size_text(family['bytes'])} for {count}"
    rows |= {
        "a sequence": f"{size_text(model.cache.slot_bytes)} of recurrent state, "
        f"{model.cache.token_bytes:,} bytes of KV cache a token (f16; {_kv_bytes(model)['q8_0']:,} in q8_0)",
        "a token": f"moves {size_text(cost.total_bytes)} and takes {count_text(cost.multiply_adds)} multiply-adds, "
        f"when {depth:,} are before it",
        "  weights": size_text(cost.weight_bytes),
        "  states": size_text(cost.state_bytes),
        "  KV cache": size_text(cost.kv_bytes),
    }
    return (f"{name:<11} {text}" for name, text in rows.items())


def _scaling(yarn: "Yarn | None") -> str:
    return f", {yarn.factor:g} times {yarn.original_len:,} by YaRN" if yarn else ""


def _tensor_lines(model: "Description") -> Iterator[str]:
    for row in model.tensors:
        shape = " x ".join(map(str, row.shape))
        yield f"  {row.name:<44} {row.dtype:>6} -> {row.family:<5} {row.memory_bytes:>14,}  [{shape}]"
