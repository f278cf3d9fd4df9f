"""The engine's limits."""

from dataclasses import dataclass

from qwick.errors import UsageError
from qwick.ops.contract import KV_FORMATS


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """context_len: most tokens of one sequence, prompt and answer. step_tokens: most rows of one step.

    kv_format: of the attention cache, one of KV_FORMATS.
    kept_sequences: how many finished ones stay in memory, for prompts that go on from them (cache/kept.py).
    """

    context_len: int = 4096
    max_sequences: int = 1
    step_tokens: int = 512
    kv_format: str = "f16"
    kept_sequences: int = 0

    def __post_init__(self) -> None:
        for name in ("context_len", "max_sequences", "step_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.kept_sequences < 0:
            raise UsageError(f"kept_sequences must be at least 0, not {self.kept_sequences}")
        if self.kv_format not in KV_FORMATS:
            raise UsageError(f"kv_format must be one of {', '.join(KV_FORMATS)}, not {self.kv_format!r}")
        if self.step_tokens < self.max_sequences:
            raise UsageError(f"step_tokens = {self.step_tokens} is less than max_sequences = {self.max_sequences}")
