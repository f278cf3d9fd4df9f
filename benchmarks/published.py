"""A measurement's files: what was found as JSON, and the same as a table."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.peers.table import machine


def publish(folder: Path, name: str, lines: Sequence[str], found: Mapping[str, Any]) -> None:
    """Print the table, write it beside the JSON; both say which machine, and when. Folders of paths are left out."""
    about = machine()
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    words = (Path(word).name if "/" in word else word for word in sys.argv)
    command = shlex.join(["python", *words])
    print("\n".join(lines), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"command": command, "date": date, "machine": about, **found}
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
    where = f"{about['processor']}, {about['cores']} cores, {about['best_isa']}; qwick {about['qwick']}; {date}."
    (folder / f"{name}.md").write_text("\n".join([*lines, "", where, "", f"    {command}"]) + "\n")
