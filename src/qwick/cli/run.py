"""`qwick run`: ask a model once, see the answer as it grows."""

import json
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from qwick.cli.answer import AnswerWriter
from qwick.cli.options import MachineFlags, ModelName, SamplingFlags, ShowThinking, spread
from qwick.cli.prompt import read_prompt, read_system
from qwick.cli.stats import measured, stats_line
from qwick.cli.terminal import warn
from qwick.errors import UsageError
from qwick.store import find_model


@spread
def run(
    model: ModelName = "pocket",
    prompt: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="The question; standard input goes before it.")
    ] = None,
    *,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="System message; @FILE reads it from a file.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="Put a text file before the prompt; may be repeated."),
    ] = None,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Reason before answering; the model's own default when left out."),
    ] = None,
    show_thinking: ShowThinking = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Show counts and speeds on standard error.")] = False,
    json_stats: Annotated[
        bool, typer.Option("--json-stats", help="The same and more as one JSON object, the last line there.")
    ] = False,
    sampling: SamplingFlags,
    machine: MachineFlags,
) -> None:
    """Ask MODEL and see the answer as it grows.

    The prompt: the files, then standard input unless it is a terminal, then PROMPT.

    Reasoning is shown dimmed on a terminal; what is piped on is the answer alone.

    qwick run pocket "What is 17 + 25?"

    qwick run ./Qwen3.5-0.8B "Sum this up:" --file report.txt

    git diff | qwick run ./Qwen3.5-4B-Q4_K_M.gguf "Review this change."
    """
    find_model(model)  # a wrong one is said before standard input is waited for
    if raw:
        _check_raw(think=think, system=system, files=file)
    text = read_prompt(prompt or [], file or [], model)
    system_text = read_system(system)
    stop = sampling.stops

    started = perf_counter()
    with machine.open(model) as llm:
        load_seconds = perf_counter() - started
        if raw:
            answer = llm.stream(text, stop=stop, **sampling.options())
        else:
            messages = [] if system_text is None else [{"role": "system", "content": system_text}]
            messages.append({"role": "user", "content": text})
            answer = llm.chat(messages, think=think, stream=True, stop=stop, **sampling.options())
        AnswerWriter(show_thinking=show_thinking).write(answer.segments())
        completion = answer.completion
        if completion.reasoning and not completion.text:
            warn("the answer ended while the model was still thinking; give more --max-tokens, or --no-think")
        if stats:
            typer.echo(f"loaded in {load_seconds:.2f} s · {stats_line(completion)}", err=True)
        if json_stats:
            asked = {"model": model, "format": machine.format, "load_seconds": load_seconds}
            typer.echo(json.dumps(asked | measured(completion, llm.backend)), err=True)


def _check_raw(*, think: bool | None, system: str | None, files: list[Path] | None) -> None:
    given = {"--think and --no-think": think is not None, "--system": system is not None, "--file": bool(files)}
    for option, is_given in given.items():
        if is_given:
            raise UsageError(f"--raw uses no chat template, so {option} would mean nothing there; leave one out")
