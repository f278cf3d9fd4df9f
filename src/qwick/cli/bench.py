"""`qwick bench`: how fast a model is here, beside what the machine allows and beside a peer."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwick.cli.bench_tables import notes, show_figures, show_ops
from qwick.cli.options import complete_model
from qwick.cli.tables import size_text
from qwick.cli.terminal import is_terminal, loading_bar, one_line
from qwick.errors import UsageError

if TYPE_CHECKING:
    from qwick.bench.measure import Figure, Measurement
    from qwick.bench.op_profile import OpRow
    from qwick.model.model import Model
    from qwick.ops.native import NativeWeight

DEFAULT_FORMAT = "Q4_K_M"
_MODEL = "`pocket` (embedded), a folder, a .gguf file, or a name from `qwick list`."
_WHAT, _BESIDE, _SHOWN = "What is measured", "Beside it", "How it is shown"


def _complete_size(incomplete: str) -> list[str]:
    from qwick.bench.sizes import SIZES

    return [size for size in SIZES if size.startswith(incomplete)]


def bench(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=_MODEL, autocompletion=complete_model)] = None,
    *,
    prompt: Annotated[
        str, typer.Option("-p", "--prompt", metavar="N,…", help="Tokens of a prompt.", rich_help_panel=_WHAT)
    ] = "512",
    answer: Annotated[
        str, typer.Option("-n", "--answer", metavar="N,…", help="Tokens of an answer.", rich_help_panel=_WHAT)
    ] = "64",
    depth: Annotated[
        str,
        typer.Option("-d", "--depth", metavar="N,…", help="Tokens in the context before.", rich_help_panel=_WHAT),
    ] = "0",
    batch: Annotated[
        str, typer.Option("-b", "--batch", metavar="N,…", help="Sequences together.", rich_help_panel=_WHAT)
    ] = "1",
    threads: Annotated[
        str | None,
        typer.Option("-t", "--threads", metavar="N,…", help="Default: one per core.", rich_help_panel=_WHAT),
    ] = None,
    repeats: Annotated[
        int, typer.Option("-r", "--repeats", min=1, max=10_000, metavar="N", help="Rounds.", rich_help_panel=_WHAT)
    ] = 7,
    kv_format: Annotated[
        str, typer.Option(metavar="FORMAT", help="The attention cache: f16, bf16, q8_0 or f32.", rich_help_panel=_WHAT)
    ] = "f16",
    random_weights: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Instead of MODEL: qwen3.5:0.8b, 2b, 4b or 9b, written once into `.random` of the store, no download.",
            autocompletion=_complete_size,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help=f"Of random weights: {DEFAULT_FORMAT}, Q8_0, BF16, Q4_0, …", rich_help_panel=_WHAT
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="A llama-bench, its folder, or `xllamacpp`, the package; runs in turns with us. May be repeated.",
            rich_help_panel=_BESIDE,
        ),
    ] = None,
    ops: Annotated[
        bool, typer.Option("--ops", help="Show where a step's time goes, op by op.", rich_help_panel=_BESIDE)
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw it too.", rich_help_panel=_SHOWN)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.", rich_help_panel=_SHOWN)] = False,
) -> None:
    """Measure tokens per second, each beside the limit that this machine sets in the same round.

    pp512 reads a prompt of 512 tokens, tg64 takes 64 steps of one token, as llama-bench names them; `@ d4096` after
    4,096 tokens of made-up context, `b8` with 8 sequences, all their tokens counted. Medians with their range.

    The limit of decoding is a plain read of as many bytes as a step needs (weights, states, keys and values), that of
    prompts the speed of one matrix product alone.

    Peers run on the same GGUF file with as many threads; several sequences are measured with the llama-batched-bench
    beside a llama-bench. A context that we make up, a peer has to read first: at great depth that takes minutes.

    qwick bench --random-weights qwen3.5:0.8b --format Q4_K_M

    qwick bench model.gguf -p 0 -n 64 --depth 0,4096 --batch 1,8 --against ~/llama.cpp/build/bin/llama-bench
    """
    from qwick.bench.cases import plan_cases
    from qwick.bench.measure import Measurement
    from qwick.bench.peers import open_peers
    from qwick.bench.plot import check_plot, save_plot
    from qwick.cache.spec import check_context
    from qwick.model.model import open_model
    from qwick.model.source import open_source
    from qwick.ops.contract import KV_FORMATS
    from qwick.ops.native import default_threads

    if kv_format not in KV_FORMATS:
        raise UsageError(f"--kv-format is {kv_format!a:.40}; it must be one of {', '.join(KV_FORMATS)}")
    prompts, answers = numbers("-p", prompt), numbers("-n", answer)
    depths, batches = numbers("--depth", depth), numbers("--batch", batch)
    thread_counts = numbers("--threads", threads) if threads else [default_threads()[0]]
    if plot:
        check_plot(plot)
    cases = plan_cases(prompts, answers, depths, batches, thread_counts)
    path = _path(model, random_weights, format)
    peers = open_peers(against or (), path, kv_format, batched=max(batches) > 1)
    if random_weights:
        _write_random(random_weights, format)
    with open_source(path) as source:
        check_context(max(case.context_len for case in cases), source.config.max_position_embeddings)
        with loading_bar(f"loading {path.name}") as progress:
            opened = open_model(source, threads=max(thread_counts), progress=progress)
    measurement = Measurement(opened, cases, kv_format=kv_format, peers=peers)
    loads = [os.getloadavg()[0]]
    with _Progress() as say:
        figures = measurement.run(repeats, say)
        profiles = _profiles(opened, measurement, say) if ops else {}
    loads.append(os.getloadavg()[0])
    names = {called: peer.name for called, peer in peers.items()}
    if as_json:
        _show_json(path, measurement, profiles, names, loads)
    else:
        _show_head(path, measurement, loads)
        show_figures(figures)
        for line in notes(figures, names):
            typer.echo(line, err=True)
        for name, rows in profiles.items():
            show_ops(name, rows, next(figure for figure in figures if _profile_name(figure) == name))
    if plot:  # last: whatever is wrong with it costs no figures
        peer_name = next(iter(names.values())) if len(names) == 1 else "the best peer"
        save_plot(plot, f"{path.name}, {measurement.isa}", figures, peer_name)


def numbers(name: str, text: str) -> list[int]:
    """`512,1024` -> both. Raises UsageError."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [-1]
    if min(found) < 0 or max(found) >= 1 << 31:
        raise UsageError(f"{name} is {text!a:.80}; give whole numbers with commas between, like 512,1024")
    return found


def _path(model: str | None, size: str | None, format: str | None) -> Path:
    """Random weights may not be there yet."""
    from qwick.bench.random_weights import random_path
    from qwick.store import find_model

    if size is None:
        if format is not None:
            raise UsageError("--format chooses among random weights; give --random-weights too, or qwick convert MODEL")
        return find_model(model or "pocket")
    if model is not None:
        raise UsageError(f"MODEL {model!a:.100} and --random-weights exclude each other; leave one of them out")
    return random_path(size, format or DEFAULT_FORMAT)


def _write_random(size: str, format: str | None) -> None:
    from qwick.bench.random_weights import random_model

    with loading_bar(f"writing random weights of {size}") as progress:
        random_model(size, format or DEFAULT_FORMAT, progress)


class _Progress:
    """One line on standard error that changes; nothing where that is no terminal. No thread: that would be measured."""

    def __enter__(self) -> Callable[[str], None]:
        return self._say

    def __exit__(self, *_: object) -> None:
        self._say("")

    def _say(self, text: str) -> None:
        if is_terminal(sys.stderr):
            sys.stderr.write(f"\r\x1b[K{one_line(text)}")
            sys.stderr.flush()


def _profiles(
    model: "Model[NativeWeight]", measurement: "Measurement", say: Callable[[str], None]
) -> "dict[str, list[OpRow]]":
    from qwick.bench.op_profile import profile_ops
    from qwick.ops.native import NativeProgram

    program = model.program("forward")
    assert isinstance(program, NativeProgram)
    found: dict[str, list[OpRow]] = {}
    for figure in measurement.figures:
        say(f"timing the ops of {figure.case.name}")
        measurement.prepare(figure.case)
        rows = profile_ops(program, measurement.sequences, figure.case, measurement.cost)
        found[_profile_name(figure)] = rows
    return found


def _profile_name(figure: "Figure") -> str:
    return f"{figure.case.name}, {figure.case.threads} threads"


def _show_json(
    path: Path,
    measurement: "Measurement",
    profiles: "Mapping[str, Sequence[OpRow]]",
    peers: Mapping[str, str],
    loads: Sequence[float],
) -> None:
    from qwick.bench.report import report
    from qwick.ops.native import describe_machine

    found = describe_machine()
    machine = {
        "isa": measurement.isa,
        "default_threads": found.threads,
        "load_before": loads[0],
        "load_after": loads[1],
    }
    cost = measurement.cost
    about = {
        "path": str(path),
        "weight_bytes": cost.weight_bytes,
        "state_bytes": cost.state_bytes,
        "kv_bytes_per_token": cost.token_kv_bytes,
        "prompt_multiply_adds": cost.prompt_madds,
    }
    typer.echo(json.dumps(report(machine, about, measurement.figures, peers, profiles), indent=2))


def _show_head(path: Path, measurement: "Measurement", loads: Sequence[float]) -> None:
    cost = measurement.cost
    read = f"a token reads {size_text(cost.weight_bytes)} of weights and {size_text(cost.state_bytes)} of states"
    load = f"load {loads[0]:.1f} before, {loads[1]:.1f} after"
    typer.echo(one_line(f"{path.name}: {read}; kernels {measurement.isa}; {load}"), err=True)
