"""Reading what a file says about a network, with suspicion."""

from collections.abc import Iterable, Mapping
from typing import Any

from qwick.errors import ConfigError


class Keys:
    """Typed reads of one JSON object, or of a GGUF file's keys; every complaint names the key and the value."""

    def __init__(self, section: Mapping[str, Any], where: str = "config.json") -> None:
        self._section = section
        self.where = where

    @property
    def names(self) -> Iterable[str]:
        return self._section.keys()

    def size(self, key: str, default: int | None = None, *, low: int = 1, limit: int = 1 << 20) -> int:
        value = self._section.get(key, default)
        if value is None:
            raise ConfigError(f"{self.where} lacks {key!r}")
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= limit:
            raise ConfigError(f"{self.where}: {key} = {value!r:.80} is not a whole number from {low} to {limit}")
        return value

    def number(self, key: str, default: float | None, *, low: float, high: float) -> float:
        value = self._section.get(key, default)
        if value is None:
            raise ConfigError(f"{self.where} lacks {key!r}")
        if not isinstance(value, int | float) or isinstance(value, bool) or not low < value <= high:
            raise ConfigError(f"{self.where}: {key} = {value!r:.80} is not a number above {low} and up to {high}")
        return float(value)

    def get(self, key: str, default: Any = None) -> Any:
        return self._section.get(key, default)
