"""`qwick run`: ask a model once, see the answer as it grows."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from qwick.cli.options import MachineFlags, ModelName, SamplingFlags, spread
from qwick.cli.terminal import harmless, is_terminal, one_line
from qwick.errors import UsageError

if TYPE_CHECKING:
    from qwick.streams import Completion, Stream


@spread
def run(
    model: ModelName = "pocket",
    prompt: Annotated[str | None, typer.Argument(help="The question; from standard input when left out.")] = None,
    *,
    sampling: SamplingFlags,
    machine: MachineFlags,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Reason before answering; the model's own default when left out."),
    ] = None,
    raw: Annotated[bool, typer.Option(help="Continue the prompt as it is, without the chat template.")] = False,
    stats: Annotated[bool, typer.Option(help="Show counts and speeds on standard error.")] = False,
) -> None:
    """Ask MODEL and see the answer as it grows.

    qwick run pocket "What is 17 + 25?"

    qwick run ./Qwen3.5-0.8B < question.txt
    """
    if raw and think is not None:
        raise UsageError("--raw uses no chat template, so --think and --no-think mean nothing there; leave one out")
    text = _read_prompt(prompt)

    stop = sampling.stops

    with machine.open(model) as llm:
        if raw:
            answer = llm.stream(text, stop=stop, **sampling.options())
        else:
            messages = [{"role": "user", "content": text}]
            answer = llm.chat(messages, think=think, stream=True, stop=stop, **sampling.options())
        _write(answer)
        if stats:
            typer.echo(one_line(_stats_line(answer.completion)), err=True)


def _read_prompt(prompt: str | None) -> str:
    """The argument, or standard input without its last line break."""
    text = _read_standard_input() if prompt is None else prompt
    if not text.strip():
        raise UsageError('the prompt is empty; write it after the model (qwick run pocket "Hello")')
    return text


def _read_standard_input() -> str:
    if is_terminal(sys.stdin):
        raise UsageError('no prompt; write it after the model (qwick run pocket "Hello"); `qwick chat` comes later')
    data = sys.stdin.buffer.read() if sys.stdin else b""
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text: {error}") from None


def _write(answer: "Stream") -> None:
    """Piece by piece, a line break at the end."""
    clean = harmless if is_terminal(sys.stdout) else str
    last = ""
    for piece in map(clean, answer):
        last = piece or last
        typer.echo(piece, nl=False)
        sys.stdout.flush()
    if not last.endswith("\n"):
        typer.echo()


def _stats_line(completion: "Completion") -> str:
    """One line: counts, speeds, time to the first token."""
    stats = completion.stats
    decoded = stats.generated_tokens - 1  # the first token comes with the prompt
    return (
        f"prompt {stats.prompt_tokens:,} tokens, {_rate(stats.prompt_tokens, stats.prompt_seconds)} · "
        f"answer {stats.generated_tokens:,} tokens, {_rate(decoded, stats.decode_seconds)} · "
        f"first token after {stats.prompt_seconds:.3f} s · ended by {completion.finish_reason}"
    )


def _rate(num_tokens: int, seconds: float) -> str:
    return f"{num_tokens / seconds:,.1f} tok/s" if num_tokens > 0 and seconds > 0 else "too few to time"
