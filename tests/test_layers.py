"""The direction of imports: what import-linter checks, and what it cannot see."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "qwick"


def imported_names(path: Path) -> Iterator[str]:
    """Every module or member that the file imports, anywhere in it, relative ones made absolute."""
    package = ("qwick", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def importers(name: str) -> set[str]:
    """Files of the package that import `name` or something of it, relative to src/qwick."""
    return {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(f"{imported}.".startswith(f"{name}.") for imported in imported_names(path))
    }


def test_imports_go_down_only_and_make_no_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == EXIT_STATUS_SUCCESS


def test_only_native_ops_import_the_kernels() -> None:
    assert importers("qwick._kernels") <= {"ops/native.py"}


def test_torch_is_imported_by_its_ops_and_by_the_check_against_transformers_only() -> None:
    assert importers("torch") <= {"ops/torch.py", "ops/delta_chunks.py", "verify/parity.py"}
    assert importers("transformers") <= {"verify/parity.py"}


def test_importing_qwick_is_cheap() -> None:
    program = "import sys, qwick; print([m for m in ('numpy', 'torch', 'tokenizers', 'qwick.llm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
