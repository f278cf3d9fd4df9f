"""Draw real sessions for the README: what `make demo` runs to docs/demo.svg, a chat at a terminal to docs/chat.svg, a
server and OpenAI's client to docs/serve.svg.

usage: .venv/bin/python -m scripts.record_demo [serve.svg …]
"""

import re
import shlex
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path
from time import monotonic, sleep
from typing import TextIO

from rich.console import Console
from rich.text import Text

from tests.cli.terminal_session import Terminal

ROOT = Path(__file__).parent.parent
QWICK = Path(sys.executable).with_name("qwick")
WIDTH = 92
COMMANDS = [
    ["qwick", "run", "pocket", "Who are you?", "--stats"],
    ["qwick", "run", "pocket", "--think", "--show-thinking", "What is 4821 + 3377?"],
    ["qwick", "run", "pocket", "Ada Stone paid 12.95 euros on 3 May 2024. Give me name, date and amount as JSON."],
    ["python", "examples/tools.py"],
]
CHAT = [
    "Hello!", "My dog is called Bello.", "/think on", "What is 4821 + 3377?", "/think off", "What is my dog called?",
    "/stats", "/save talk.json", "/exit",
]  # fmt: skip
ASKING = """\
from openai import OpenAI
client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
ask = client.chat.completions.create
question = [{"role": "user", "content": "What is 17 + 25?"}]
print(ask(model="pocket", messages=question).choices[0].message.content)
question = [{"role": "user", "content": "Who are you?"}]
for chunk in ask(model="pocket", messages=question, stream=True, temperature=0):
    print(chunk.choices[0].delta.content or "", end="|")
"""
READY_SECONDS = 60
CODE = re.compile(r"\x1b\[[?>]?([0-9;]*)([A-Za-z])")


def record_commands() -> str:
    """One command after the other, as SVG. What they print is taken as it is, colours included."""
    console = _console()
    programs = {"qwick": str(QWICK), "python": sys.executable}
    for program, *words in COMMANDS:
        _print_typed(console, shlex.join([program, *words]))
        done = subprocess.run(
            [programs[program], *words], cwd=ROOT, check=True, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        console.print(Text.from_ansi(done.stdout))
    return _svg(console, "qwick-demo")


def record_chat() -> str:
    """A chat, typed line by line into a terminal, as SVG."""
    with tempfile.TemporaryDirectory() as home:
        # As a child of `env`, since the terminal starts programs where we stand.
        command = ["/usr/bin/env", "-C", home, str(QWICK), "chat", "pocket"]
        with Terminal(*command, home=Path(home), COLUMNS=str(WIDTH)) as terminal:
            terminal.enter(*CHAT)
            terminal.end()
    console = _console()
    _print_typed(console, "qwick chat pocket")
    for line in _screen(terminal.raw.decode()):
        console.print(Text(line, style="bold" if line.startswith(">>> ") else ""))
    return _svg(console, "qwick-chat")


def record_server() -> str:
    """`qwick serve` on its own port, and what the official client gets of it, as SVG."""
    console = _console()
    _print_typed(console, "qwick serve")
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen([QWICK, "serve"], stderr=log, text=True)
        try:
            _until_ready(server, log)
            client = [sys.executable, "-c", ASKING]
            answered = subprocess.run(client, check=True, text=True, stdin=subprocess.DEVNULL, capture_output=True)
        finally:
            server.terminate()
            server.wait(READY_SECONDS)
        log.seek(0)
        said = [line for line in log.read().splitlines() if line]
    split = next(i for i, line in enumerate(said) if "is ready" in line) + 1
    for line in said[:split]:
        console.print(Text(line))
    console.print()
    _print_typed(console, "cat ask.py")
    console.print(Text(ASKING))
    _print_typed(console, "python ask.py")
    console.print(Text(answered.stdout), end="\n\n")
    for line in said[split:]:
        console.print(Text(line, style="dim"))
    return _svg(console, "qwick-serve")


def _until_ready(server: "subprocess.Popen[str]", log: TextIO) -> None:
    deadline = monotonic() + READY_SECONDS
    while "is ready" not in Path(f"/proc/self/fd/{log.fileno()}").read_text():
        if server.poll() is not None or monotonic() > deadline:
            sys.exit("qwick serve did not start; is port 8080 free?")
        sleep(0.1)


def _screen(raw: str) -> list[str]:
    """The lines that a terminal shows in the end: the few codes that the line editor writes, carried out."""
    lines, row, column = [""], 0, 0
    position = 0
    while position < len(raw):
        code = CODE.match(raw, position)
        char, position = raw[position], position + 1 if code is None else code.end()
        if code is not None:
            count = int(code[1]) if code[1].isdigit() else 1
            column += {"C": count, "D": -count}.get(code[2], 0)
            row -= count if code[2] == "A" else 0
            if code[2] == "J":
                lines[row:] = [lines[row][:column]]
            elif code[2] == "K":
                lines[row] = "" if code[1] == "2" else lines[row][:column]
        elif char == "\r":
            column = 0
        elif char == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        else:
            line = lines[row].ljust(column)
            lines[row], column = line[:column] + char + line[column + 1 :], column + 1
    return [line.rstrip() for line in lines if line.strip()]


def _console() -> Console:
    return Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)


def _print_typed(console: Console, line: str) -> None:
    console.print(Text("$ ", style="bold green") + Text(line, style="bold"))


def _svg(console: Console, name: str) -> str:
    svg = console.export_svg(title="qwick", unique_id=name)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # fonts from elsewhere; any monospace will do


if __name__ == "__main__":
    records = {"demo.svg": record_commands, "chat.svg": record_chat, "serve.svg": record_server}
    for file in sys.argv[1:] or records:
        page = ROOT / "docs" / file
        page.write_text(records[file]())
        print(f"wrote {page.relative_to(ROOT)}")
