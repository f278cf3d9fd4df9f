"""Flags that several commands share: groups of them, as dataclasses, and `spread`, which puts a group into a command.

>>> @spread
... def chat(model: ModelName = "pocket", *, sampling: SamplingFlags, machine: MachineFlags) -> None: ...
"""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

import typer

from qwick.cli.terminal import loading_bar, note
from qwick.errors import QwickError, UsageError
from qwick.store import POCKET, entries

if TYPE_CHECKING:  # the real import waits until the arguments are known to be right
    from qwick.engine.memory_plan import MemoryPlan
    from qwick.llm import LLM
    from qwick.opening import EngineOptions
    from qwick.prompting import SamplingOptions

_BYTES = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*(?:([kmgt])(ib?|b)?|b)?", re.IGNORECASE)
SAMPLING, MACHINE = "Sampling", "Machine"  # panels of the help


def complete_entry(incomplete: str) -> list[str]:
    """Names in the store that begin so."""
    try:
        return [entry.name for entry in entries() if entry.name.startswith(incomplete)]
    except QwickError:
        return []


def complete_model(incomplete: str) -> list[str]:
    """Where none begins so, the shell completes paths."""
    return [POCKET] * POCKET.startswith(incomplete) + complete_entry(incomplete)


def _complete_format(incomplete: str) -> list[str]:
    from qwick.formats import ENCODABLE

    return [format.name for format in ENCODABLE if format.name.startswith(incomplete)]


_NAMES = "`pocket` (embedded), a folder, a .gguf file, or a name from `qwick list`."
ModelName: TypeAlias = Annotated[str, typer.Argument(metavar="MODEL", help=_NAMES, autocompletion=complete_model)]
ShowThinking: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--show-thinking/--hide-thinking",
        help="Show the reasoning; left out, only on a terminal. Of piped answers it goes to standard error.",
    ),
]


def _sampling(text: str, metavar: str) -> Any:
    return typer.Option(help=text, metavar=metavar, rich_help_panel=SAMPLING)


def _machine(text: str, metavar: str) -> Any:
    return typer.Option(help=text, metavar=metavar, rich_help_panel=MACHINE)


@dataclass(frozen=True)
class SamplingFlags:
    """How a token is chosen and where an answer ends. None: the model's own default."""

    max_tokens: Annotated[int | None, _sampling("Most tokens of an answer.", "N")] = None
    temperature: Annotated[float | None, _sampling("0 takes the likeliest token each time.", "X")] = None
    top_k: Annotated[int | None, _sampling("Choose among the k likeliest; 0: among all.", "N")] = None
    top_p: Annotated[float | None, _sampling("Choose among the likeliest that reach p together.", "X")] = None
    min_p: Annotated[float | None, _sampling("Drop tokens less likely than p times the best.", "X")] = None
    presence_penalty: Annotated[float | None, _sampling("Off the logit of each token written; -2 to 2.", "X")] = None
    frequency_penalty: Annotated[float | None, _sampling("The same for each time it was; -2 to 2.", "X")] = None
    repetition_penalty: Annotated[float | None, _sampling("Divides the logits of tokens seen; 1: none.", "X")] = None
    logit_bias: Annotated[
        list[str] | None, _sampling("Add to a token's logit, -inf forbids it; may be repeated.", "ID=VALUE")
    ] = None
    seed: Annotated[int | None, _sampling("The same seed gives the same answer.", "N")] = None
    stop: Annotated[list[str] | None, _sampling("End an answer before this text; may be repeated.", "TEXT")] = None

    def options(self) -> "SamplingOptions":
        """What LLM takes beside `stop`. Raises UsageError."""
        from qwick.prompting import SamplingOptions

        return SamplingOptions(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=_bias(self.logit_bias),
            seed=self.seed,
            max_tokens=self.max_tokens,
        )

    @property
    def stops(self) -> tuple[str, ...]:
        if "" in (self.stop or ()):
            raise UsageError("--stop is empty; give the text that ends an answer, or leave the option out")
        return tuple(self.stop or ())


@dataclass(frozen=True)
class MachineFlags:
    """How a model uses this machine."""

    threads: Annotated[int | None, _machine("Threads for decoding; `qwick doctor` shows what is best.", "N")] = None
    threads_batch: Annotated[int | None, _machine("Threads for prompts.", "N")] = None
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Weights in memory: f32, bf16, q8_0, …; as in the file when left out.",
            autocompletion=_complete_format,
            rich_help_panel=MACHINE,
        ),
    ] = None
    ctx_size: Annotated[int | None, _machine("Most tokens of prompt and answer together.", "N")] = None
    yarn: Annotated[
        float | None,
        _machine("Longer contexts, by YaRN: 2 for 524,288 tokens, 4 for 1,010,000. Short texts may suffer.", "2|4"),
    ] = None
    kv_format: Annotated[str, _machine("The attention cache in memory: f16, bf16, q8_0 or f32.", "FORMAT")] = "f16"
    memory: Annotated[
        str | None,
        _machine("Most memory the program may take, weights and all; what it goes to is shown at the start.", "8GiB"),
    ] = None
    cache_memory: Annotated[
        str | None, _machine("Of it for what was read, so that prompts that begin alike go on from there.", "1GiB")
    ] = None
    mlock: Annotated[
        bool, typer.Option("--mlock", help="Keep the weights from being swapped out.", rich_help_panel=MACHINE)
    ] = False
    pack_cache: Annotated[
        bool,
        typer.Option(
            "--pack-cache/--no-pack-cache",
            help="Keep the weights as memory holds them: a second copy on disk and a slower first start, the next ones "
            "are faster; `qwick doctor` shows and clears them.",
            rich_help_panel=MACHINE,
        ),
    ] = False

    def open(self, model: str, *, cache_memory: int = 0) -> "LLM":
        """The model in memory; a bar shows the loading on a terminal. `cache_memory`: when the flag is left out."""
        from qwick.llm import LLM

        options = asdict(self.engine_options(max_sequences=1, cache_memory=cache_memory))
        del options["memory_elsewhere"]  # of an engine in a process of its own
        with loading_bar(f"loading {model}") as progress:
            llm = LLM(model, **options, progress=progress)
        tell_memory(llm.memory)
        return llm

    def engine_options(self, *, max_sequences: int, cache_memory: int = 0) -> "EngineOptions":
        """For an engine, in this process or its own. `cache_memory`: when the flag is left out. Raises UsageError."""
        from qwick.opening import EngineOptions

        if self.cache_memory is not None:
            cache_memory = byte_count("--cache-memory", self.cache_memory)
        return EngineOptions(
            format=self.format,
            threads=self.threads,
            threads_batch=self.threads_batch,
            context_len=self.ctx_size,
            yarn=self.yarn,
            kv_format=self.kv_format,
            lock_memory=self.mlock,
            max_sequences=max_sequences,
            cache_memory=cache_memory,
            memory=None if self.memory is None else byte_count("--memory", self.memory),
            pack_cache=self.pack_cache,
        )


def tell_memory(plan: "MemoryPlan | None") -> None:
    """What a cap goes to, at the start; nothing without one."""
    if plan is not None:
        note(f"memory up to {plan}")


def byte_count(option: str, text: str) -> int:
    """`8GiB`, `8G`, `512MiB`, `2GB` (powers of 1000), or a number of bytes. Raises UsageError."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} is {text!a:.40}; write a size like 8GiB, 512MiB or 2GB")
    number, prefix, unit = match.groups()
    base = 1000 if (unit or "").lower() == "b" and prefix else 1024
    count = float(number) * base ** (" kmgt".index(prefix.lower()) if prefix else 0)
    if count > 1 << 60:
        raise UsageError(f"{option} is {text!a:.40}, more than any machine has")
    return int(count)


def _bias(given: Sequence[str] | None) -> dict[int, float] | None:
    """`ID=VALUE` of each; of an id that is given twice the last."""
    if not given:
        return None
    try:
        return {int(token_id): float(value) for token_id, value in (text.split("=") for text in given)}
    except ValueError:
        shown = ", ".join(f"{text!a:.40}" for text in given)
        raise UsageError(f"--logit-bias is {shown}; write a token id and a number, like 1234=-5") from None


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, with a flag for each field of its parameters that are groups of flags, as typer reads signatures."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }

    @wraps(command)
    def spread_out(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group = groups.get(parameter.name)
        found = [parameter.replace(annotation=hints[parameter.name])] if group is None else _flags_of(group)
        parameters += found
    spread_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread_out.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return spread_out


def _flags_of(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]
