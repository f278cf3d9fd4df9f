"""docs/cli.md is what the code says."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from scripts.write_cli_docs import PAGE, page

from qwick.cli.failures import EXIT_CODES
from qwick.cli.main import ENVIRONMENT, commands

README = Path(__file__).parents[2] / "README.md"
EXAMPLE = r"^{}(?:.*\| )?(qwick [a-z].*)$"  # of a line that begins so


def examples() -> list[str]:
    """Every command line that README and docs/cli.md show, without comments and redirections."""
    lines = re.findall(EXAMPLE.format("    "), README.read_text(), re.MULTILINE)
    lines += re.findall(EXAMPLE.format(""), PAGE.read_text(), re.MULTILINE)
    return sorted({re.split(r"  #| [<>] ", line)[0].strip() for line in lines if "[OPTIONS]" not in line})


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "the commands have changed: make docs"


def test_the_page_has_every_command_and_option() -> None:
    text = page()
    for word in ("## qwick run", "## qwick inspect", "## qwick doctor", "`--top-k N`", "`--think, --no-think`"):
        assert word in text
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in text
    for variable in ENVIRONMENT:
        assert f"`{variable}`" in text


@pytest.mark.parametrize("line", examples())
def test_what_is_shown_can_be_typed(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    root: Any = typer.main.get_command(commands)
    command = root.get_command(root.make_context("qwick", [], resilient_parsing=True), name)
    assert command is not None, f"there is no command {name}"
    command.make_context(name, arguments)  # parses, and does not run


def test_there_are_examples_of_most_commands() -> None:
    shown = {line.split()[1] for line in examples()}
    assert {"run", "chat", "convert", "list", "show", "inspect", "rm", "doctor", "verify"} <= shown
