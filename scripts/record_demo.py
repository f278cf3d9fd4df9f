"""Run what `make demo` runs and draw the terminal to docs/demo.svg, for the README.

usage: .venv/bin/python scripts/record_demo.py
"""

import re
import shlex
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
QWICK = Path(sys.executable).with_name("qwick")
WIDTH = 92
COMMANDS = [
    ["run", "pocket", "What is 17 + 25?"],
    ["run", "pocket", "Reverse the word lantern.", "--stats"],
    ["run", "pocket", "Who are you?"],
]


def record() -> str:
    """The session as SVG. What the commands print is taken as it is, colours included."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    for command in COMMANDS:
        console.print(Text("$ ", style="bold green") + Text(shlex.join(["qwick", *command]), style="bold"))
        done = subprocess.run(
            [QWICK, *command], cwd=ROOT, check=True, text=True, stdin=subprocess.DEVNULL, capture_output=True
        )
        console.print(Text.from_ansi(done.stdout + done.stderr))
    svg = console.export_svg(title="qwick", unique_id="qwick-demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # fonts from elsewhere; any monospace will do


if __name__ == "__main__":
    page = ROOT / "docs" / "demo.svg"
    page.write_text(record())
    print(f"wrote {page.relative_to(ROOT)}")
