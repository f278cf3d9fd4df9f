"""`qwick batch`: a file of prompts or chats, answered many at a time into another file, resumable."""

import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwick.cli.options import MachineFlags, SamplingFlags, spread, tell_memory
from qwick.cli.terminal import is_terminal, loading_bar, warn
from qwick.errors import UsageError
from qwick.store import find_model

if TYPE_CHECKING:  # the real imports wait until the arguments are known to be right
    from qwick.batch.journal import Journal
    from qwick.batch.run import Batch, Defaults
    from qwick.batch.source import Source
    from qwick.opening import EngineOptions

CACHE_MEMORY = 256 << 20  # bytes: lines often begin alike, and the choices of a line always do


@spread
def batch(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="A question on each line.")],
    output: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="The answers, in the same order.")],
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="As of `qwick run`.")] = "pocket",
    *,
    max_concurrent: Annotated[int, typer.Option(metavar="N", help="Questions answered at a time.")] = 16,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Reason before answering; the model's own default when left out."),
    ] = None,
    sampling: SamplingFlags,
    machine: MachineFlags,
) -> None:
    """Answer each line of IN.jsonl into OUT.jsonl.

    A line is {"prompt": …} or {"messages": […]} with sampling options by their names here, or a line of OpenAI's batch
    format; its answer has the same form. What is wrong with a line is said in its answer, and stops nothing.

    With "choices", a list of texts, a line asks which of them is likeliest to follow, by their log-probabilities.

    The same command goes on where an earlier one was stopped, even killed: nothing is lost, nothing is done twice.

    qwick batch questions.jsonl answers.jsonl --model ./Qwen3.5-0.8B --max-tokens 200 --temperature 0
    """
    if max_concurrent < 1:
        raise UsageError(f"--max-concurrent is {max_concurrent}; it must be at least 1")
    find_model(model)
    from qwick.batch.journal import Journal
    from qwick.batch.run import Defaults
    from qwick.batch.source import Source
    from qwick.sampling.params import SamplingParams

    given: dict[str, Any] = {name: value for name, value in sampling.options().items() if value is not None}
    SamplingParams(**given)  # wrong flags are said once, not on every line
    defaults = Defaults(sampling.options(), think, sampling.stops)
    lines = Source(source)
    asked = {"--model": model, "--format": machine.format, "--ctx-size": machine.ctx_size, "--think": think}
    asked |= {"--kv-format": machine.kv_format, "--yarn": machine.yarn, "--stop": sampling.stops, "sampling": given}
    if source.resolve() == output.resolve():
        raise UsageError(f"{source} would be written over; name another OUT.jsonl")
    options = machine.engine_options(max_sequences=max_concurrent, cache_memory=CACHE_MEMORY)
    with Journal(output, lines, asked) as journal:
        _run(output, model, options, defaults, lines, journal)


def _run(
    output: Path, model: str, options: "EngineOptions", defaults: "Defaults", lines: "Source", journal: "Journal"
) -> None:
    from qwick.async_llm import AsyncLLM
    from qwick.batch.run import Batch

    async def answer() -> "Batch":
        with loading_bar(f"loading {model}") as progress:
            llm = await AsyncLLM(model, options, progress=progress).start()
        tell_memory(llm.ready.config.memory)
        try:
            with _bar(lines.num_lines, journal.lines_done) as told:
                running = Batch(llm, model, defaults, options.max_sequences, told)
                await running.run(lines, journal)
                return running
        finally:
            await llm.close()

    if journal.lines_done:
        typer.echo(f"{journal.lines_done:,} of {lines.num_lines:,} lines are done; going on", err=True)
    started = perf_counter()
    counts = asyncio.run(answer()).counts
    seconds = perf_counter() - started
    typer.echo(f"{counts.answered:,} answers, {counts.generated_tokens:,} tokens in {seconds:,.1f} s", err=True)
    if counts.failed:
        warn(f"{counts.failed:,} of the lines could not be answered; what is wrong is said in their place of {output}")


@contextmanager
def _bar(total: int, done: int) -> Generator[Callable[[int], None]]:
    """Lines done, as a bar on a terminal; a callback with how many more."""
    if not is_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("answering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, completed=done)
        yield lambda more: progress.update(task, advance=more)
