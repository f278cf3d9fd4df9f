"""Print requirements of pyproject.toml, one a line: those of the project, or of one dependency group.

usage: requirements.py [GROUP [NAME]]
"""

import sys
import tomllib
from pathlib import Path


def requirements(group: str | None, name: str) -> list[str]:
    """Requirement strings whose text starts with `name`."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    lines = project["dependency-groups"][group] if group else project["project"]["dependencies"]
    return [line for line in lines if isinstance(line, str) and line.startswith(name)]


if __name__ == "__main__":
    arguments = [*sys.argv[1:], None, ""]
    print("\n".join(requirements(arguments[0], arguments[1] or "")))
