"""Write docs/cli.md from the commands themselves: `make docs`. A test compares the page with what this would write.

usage: .venv/bin/python scripts/write_cli_docs.py
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import typer.main

from qwick.cli.chat_session import COMMANDS, usage
from qwick.cli.failures import EXIT_CODES
from qwick.cli.main import ENVIRONMENT, commands
from qwick.cli.stats import JSON_STATS

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
INTRODUCTION = """\
# The command line

<!-- Written by scripts/write_cli_docs.py from the code: change the help texts there, then `make docs`. -->

MODEL is `pocket` (the embedded model), a Hugging Face style folder, a `.gguf` file (of a split one the first part), or
a name in the local store. A path to a model comes before a name. The store is a folder (`QWICK_MODELS`) whose entries
are models: folders and `.gguf` files, by their names without the ending; FOLDER/NAME where a folder holds several.

Standard output carries answers and tables only; everything else, errors too, goes to standard error. Output that is
piped on has no colours and no progress bars; `NO_COLOR` and `TERM=dumb` take the colours from a terminal too.
"""


def page() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(commands)
    context = root.make_context("qwick", [], resilient_parsing=True)
    named = dict(_commands(root, context))
    parts = [INTRODUCTION, *_overview(named)]
    for name, command in named.items():
        parts += _command(command, name)
    parts.append("## Options of `qwick` itself\n")
    parts += _tables(root)
    parts.append("## Exit codes\n")
    parts.append(_table(("code", "meaning"), ((str(code), meaning) for code, meaning in EXIT_CODES.items())))
    parts.append("## Environment\n")
    parts.append(_table(("variable", "meaning"), ((f"`{name}`", meaning) for name, meaning in ENVIRONMENT.items())))
    return "\n".join(parts)


def _commands(group: Any, context: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """All of a group and the groups in it, by what is typed after `qwick`."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from _commands(command, context, f"{before}{name} ")
        elif not command.hidden:
            yield before + name, command


def _overview(named: Mapping[str, Any]) -> Iterator[str]:
    summaries = ((name, _paragraphs(command)[0]) for name, command in named.items())
    rows = ((f"[`qwick {name}`](#qwick-{name.replace(' ', '-')})", text) for name, text in summaries)
    yield _table(("command", "what it does"), rows)


def _command(command: Any, name: str) -> Iterator[str]:
    arguments = (_argument(part) for part in command.params if part.param_type_name == "argument")
    yield f"## qwick {name}\n"
    yield "```\n" + " ".join([f"qwick {name}", *arguments, "[OPTIONS]"]) + "\n```\n"
    for are_examples, group in groupby(_paragraphs(command), _is_example):
        texts = list(group)
        yield "\n".join(["```sh", *texts, "```\n"]) if are_examples else "\n\n".join(texts) + "\n"
    yield from _tables(command)
    if name == "chat":
        yield _table(("in the chat", "meaning"), ((f"`{usage(word)}`", COMMANDS[word].help) for word in COMMANDS))
    if any("--json-stats" in part.opts for part in command.params):
        yield "`--json-stats` writes these keys:\n"
        yield _table(("key", "meaning"), ((f"`{key}`", meaning) for key, meaning in JSON_STATS.items()))


def _is_example(text: str) -> bool:
    return re.search(r"(^|\| )qwick ", text) is not None


def _paragraphs(command: Any) -> list[str]:
    return [" ".join(text.split()) for text in command.help.split("\n\n")]


def _tables(command: Any) -> Iterator[str]:
    """One table of the arguments, one of the options of each panel."""
    arguments = [part for part in command.params if part.param_type_name == "argument"]
    if arguments:
        rows = ((f"`{_name(part)}`", _meaning(part)) for part in arguments)
        yield _table(("argument", "meaning"), rows)
    panels: dict[str, list[Any]] = {}
    for part in command.params:
        if part.param_type_name == "option" and not part.hidden:
            panels.setdefault(part.rich_help_panel or "Options", []).append(part)
    for panel, options in panels.items():
        rows = ((f"`{_spelling(part)}`", _meaning(part)) for part in options)
        yield _table((panel.lower(), "meaning"), rows)


def _argument(part: Any) -> str:
    text = _name(part) + ("…" if part.nargs == -1 else "")
    return text if part.required else f"[{text}]"


def _name(part: Any) -> str:
    return part.metavar or part.name.upper()


def _spelling(part: Any) -> str:
    names = ", ".join([*part.opts, *part.secondary_opts])
    return names if part.is_flag else f"{names} {part.metavar or _name(part)}"


def _meaning(part: Any) -> str:
    text = (part.help or "").rstrip()
    default = part.default() if callable(part.default) else part.default
    if default in (None, False, (), [], ""):
        return text
    return f"{text} Default: `{part.opts[0] if default is True else default}`."


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    lines += (f"| {_cell(left)} | {_cell(right)} |" for left, right in rows)
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(PAGE.parent.parent)}")
