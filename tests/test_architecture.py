"""docs/architecture.md tells the truth about the tree."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "qwick"
PAGE = ROOT / "docs" / "architecture.md"

CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w./-]+(/|\.(py|pyi|cpp|h|md|toml|txt|sh))")


def named_files() -> list[str]:
    """Every quoted word of the page that has the form of a file or folder name."""
    words = QUOTED.findall(CODE_BLOCK.sub("", PAGE.read_text()))
    return sorted({word for word in words if FILE.fullmatch(word)})


def modules() -> list[str]:
    """The parts of the package: its folders with code, its top-level modules."""
    folders = {path.parent.name + "/" for path in PACKAGE.glob("*/*.py")}
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    return sorted(folders | files)


@pytest.mark.parametrize("name", named_files())
def test_named_file_exists(name: str) -> None:
    """Names are relative to the root, or to src/qwick."""
    assert any((base / name).exists() for base in (ROOT, PACKAGE)), f"{PAGE.name} names {name}, which does not exist"


@pytest.mark.parametrize("name", modules())
def test_every_module_has_its_line(name: str) -> None:
    assert name in named_files() or any(other.startswith(name) for other in named_files() if name.endswith("/"))
