"""A batch's input file: its lines that hold something, one at a time."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from qwick.batch.lines import MAX_LINE_BYTES
from qwick.errors import UsageError


class Source:
    """Blank lines count for nothing. Raises UsageError when the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_lines = sum(1 for _ in self._lines())

    def lines(self, begin: int) -> Iterator[bytes]:
        """From the line after the first `begin` on, without line ends. Of one that is too long what tells so."""
        return islice(self._lines(), begin, None)

    def digest(self, count: int) -> Any:
        """A sha256 of the first `count` lines, to be updated by those that follow."""
        digest = hashlib.sha256()
        for line in islice(self._lines(), count):
            extend(digest, line)
        return digest

    def _lines(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                while line := file.readline(MAX_LINE_BYTES + 2):
                    rest = line
                    while not rest.endswith(b"\n") and len(rest) > MAX_LINE_BYTES:
                        rest = file.readline(MAX_LINE_BYTES + 2)
                    if line.strip():
                        yield line.rstrip(b"\r\n")
        except OSError as error:
            raise UsageError(f"cannot read {self.path}: {error.strerror}; give a file of JSON lines") from None


def extend(digest: Any, line: bytes) -> None:
    """One more line."""
    digest.update(line + b"\n")
