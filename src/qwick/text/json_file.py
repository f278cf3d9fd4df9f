"""The small JSON files of a model's folder that may or may not be there."""

from pathlib import Path
from typing import Any

from qwick.weights.files import read_json

LIMIT_BYTES = 4 << 20  # an official tokenizer_config.json has 17 KB, template included


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; an empty one when there is no such file. Raises CheckpointError when it is broken."""
    return read_json(path, LIMIT_BYTES) if path.exists() else {}
