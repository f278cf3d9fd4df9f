"""Opening files that came from strangers: regular files only, bounded sizes, reads that say what went wrong."""

import json
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from qwick.errors import CheckpointError

JSON_LIMIT_BYTES = 1 << 20  # a config.json has 4 KB; parsed JSON takes up to 30 times its bytes
MAX_TENSORS = 20_000  # the 27B has 1,199
MAX_NAME_BYTES = 4096
MAX_SHARDS = 1000  # each is an open file
DOWNLOAD_AGAIN = "download or copy it again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a file says about one tensor: `dtype` as the file spells it, `num_bytes` as stored there."""

    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


class Place(NamedTuple):
    """Where a tensor's bytes begin: an open file, and an offset in it."""

    path: Path
    fd: int
    offset: int


class MissingFileError(CheckpointError):
    """There is no file of that name."""


class RegularFile:
    """An open file that is no folder, FIFO or device. Reads at offsets; never maps, so that a file that shrinks is
    an error and not a SIGBUS. Raises CheckpointError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        try:
            # O_NONBLOCK: opening a FIFO must not wait for its writer. It means nothing for regular files.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            status = os.fstat(self._fd)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            self.close()
            kind = MissingFileError if isinstance(error, FileNotFoundError | NotADirectoryError) else CheckpointError
            raise kind(f"{path}: cannot open: {_reason(error)}") from None
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise CheckpointError(f"{path}: not a regular file")
        self.num_bytes = status.st_size

    @property
    def fd(self) -> int:
        """The open file's descriptor."""
        return self._fd

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill `target` (bytes) from `offset`."""
        wanted = len(target)
        while target:
            try:
                count = os.preadv(self._fd, [target], offset)
            except OSError as error:
                raise CheckpointError(f"{self.path}: cannot read: {_reason(error)}") from None
            if count == 0:
                raise CheckpointError(
                    f"{self.path}: ends at byte {offset}, {len(target)} of {wanted} bytes short: "
                    "it became shorter while it was read; copy or download it again"
                )
            target = target[count:]
            offset += count

    def read(self, offset: int, num_bytes: int) -> bytes:
        """`num_bytes` bytes from `offset`."""
        data = bytearray(num_bytes)
        self.read_into(memoryview(data), offset)
        return bytes(data)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_json(path: Path, limit: int = JSON_LIMIT_BYTES) -> dict[str, Any]:
    """The object in the JSON file `path` of at most `limit` bytes.

    Raises CheckpointError when the file is missing, too long, not UTF-8, not JSON (NaN is not) or not an object.
    Of a repeated key the last value counts.
    """
    file = RegularFile(path)
    try:
        if file.num_bytes > limit:
            raise CheckpointError(f"{path}: {file.num_bytes} bytes, more than the {limit} that such a file may have")
        data = file.read(0, file.num_bytes)
    finally:
        file.close()
    try:
        text = data.decode("utf-8")
        value: object = json.loads(text, parse_constant=_refuse_constant)
        # Lone surrogates pass the parser, and then fail wherever the string is printed or written.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise CheckpointError(f"{path}: not usable JSON: nested too deeply") from None
    except ValueError as error:  # also: not UTF-8, integers of more than 4300 digits
        raise CheckpointError(f"{path}: not usable JSON: {error}; copy or download it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds a {type(value).__name__} where an object is expected")
    return cast("dict[str, Any]", value)


def shown(name: str) -> str:
    """A name from a file, safe to print: escaped and short."""
    return ascii(name if len(name) <= 200 else name[:200] + "...")


def named(names: Collection[str], most: int = 6) -> str:
    """Names as a list for a message, the first few."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
