"""What `qwick serve` was told."""

import re
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from qwick.errors import UsageError
from qwick.opening import EngineOptions
from qwick.server.limits import Limits

_WORD = re.compile(r"[!-~]{1,512}")
_LIMITS = ("name", "max-concurrent", "per-minute")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who may ask, and how much: answers at a time, requests a minute. Of the key itself only its hash is kept."""

    digest: bytes
    name: str
    max_concurrent: int | None = None
    per_minute: int | None = None

    @classmethod
    def read(cls, line: str, number: int) -> "ApiKey":
        """`KEY [name=NAME] [max-concurrent=N] [per-minute=N]`. Raises UsageError, which does not tell the key."""
        key, *limits = line.split()
        if not _WORD.fullmatch(key):
            raise UsageError(f"API key {number} has characters that no HTTP header carries; use ASCII")
        given = {name: value for name, _, value in (limit.partition("=") for limit in limits)}
        if unknown := given.keys() - set(_LIMITS):
            raise UsageError(f"API key {number} has {min(unknown)!a:.40}; known: {', '.join(_LIMITS)}")
        counts: dict[str, int | None] = {}
        for name in _LIMITS[1:]:
            text = given.get(name)
            if text is not None and not (text.isdecimal() and 0 < int(text) < 1 << 31):
                raise UsageError(f"{name} of API key {number} is {text!a:.40}; write a whole number above 0")
            counts[name] = None if text is None else int(text)
        name = given.get("name") or f"key-{number}"
        return cls(sha256(key.encode()).digest(), name, counts["max-concurrent"], counts["per-minute"])


def read_keys(given: list[str]) -> tuple[ApiKey, ...]:
    """Of `--api-key`: keys, and `@FILE` with one on each line (# begins a comment). Raises UsageError."""
    lines: list[str] = []
    for text in given:
        if not text.startswith("@"):
            lines.append(text)
            continue
        try:
            found = Path(text[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--api-key {text!a:.100}: {error}") from None
        lines += [line.partition(" #")[0] for line in found if line.strip() and not line.lstrip().startswith("#")]
    if any(not line.strip() for line in lines) or (given and not lines):
        raise UsageError("--api-key is empty: everyone could ask; give a key, or leave it out")
    keys = tuple(ApiKey.read(line, number) for number, line in enumerate(lines, 1))
    if len({key.digest for key in keys}) < len(keys):
        raise UsageError("the same API key is given twice")
    return keys


def key_of(keys: tuple[ApiKey, ...], given: str) -> ApiKey | None:
    """Which one `given` is. Takes as long for a wrong one as for a right one."""
    digest, found = sha256(given.encode("utf-8", "surrogatepass")).digest(), None
    for key in keys:
        if compare_digest(key.digest, digest):
            found = key
    return found


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """All of it. `model` is what the store calls it, `aliases` what callers may call it too.

    loop_guard       whether chats that do not say are ended when they only repeat themselves
    max_queue        requests that wait for their turn; beyond that, and beyond `limits`, they are refused (429)
    reader_seconds   that who reads a stream may take nothing of it
    timeout_seconds  of one request, from its first byte to the last of its answer
    drain_seconds    that answers under way have when the server is stopped
    """

    model: str
    engine: EngineOptions
    aliases: tuple[str, ...] = ()
    think: bool | None = None
    loop_guard: bool = True
    max_queue: int = 64
    keys: tuple[ApiKey, ...] = ()
    cors: tuple[str, ...] = ()
    max_body_bytes: int = 16 << 20
    timeout_seconds: float = 1800.0
    drain_seconds: float = 30.0
    reader_seconds: float = 60.0
    public_names: tuple[str, ...] = field(init=False)
    limits: Limits = field(init=False)

    def __post_init__(self) -> None:
        path = Path(self.model)
        name = path.stem if path.suffix == ".gguf" else path.name or self.model
        object.__setattr__(self, "limits", Limits.of(self.engine.memory, self.max_body_bytes))
        object.__setattr__(self, "public_names", (*self.aliases, *(() if name in self.aliases else (name,))))
