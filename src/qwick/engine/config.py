"""The engine's limits."""

from dataclasses import dataclass

from qwick.engine.memory_plan import MemoryPlan
from qwick.errors import UsageError
from qwick.ops.contract import KV_FORMATS


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """context_len: most tokens of one sequence, prompt and answer. step_tokens: most rows of one step.

    kv_format: of the attention cache, one of KV_FORMATS.
    cache_memory: bytes for what was read, so that prompts that begin alike go on from there (cache/prefix.py); 0: none.
    num_pages: of the cache, for sequences and what is remembered together; None: whole contexts for all sequences, and
    `cache_memory`. With fewer, sequences wait for memory, and young ones make way for old ones.
    memory: what a cap on all memory was divided into, `num_pages` among it; to be shown.
    """

    context_len: int = 4096
    max_sequences: int = 1
    step_tokens: int = 512
    kv_format: str = "f16"
    cache_memory: int = 0
    num_pages: int | None = None
    memory: MemoryPlan | None = None

    def __post_init__(self) -> None:
        for name in ("context_len", "max_sequences", "step_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.cache_memory < 0:
            raise UsageError(f"cache_memory must be at least 0 bytes, not {self.cache_memory}")
        if self.num_pages is not None and self.num_pages < 1:
            raise UsageError(f"num_pages must be at least 1, not {self.num_pages}")
        if self.kv_format not in KV_FORMATS:
            raise UsageError(f"kv_format must be one of {', '.join(KV_FORMATS)}, not {self.kv_format!r}")
        if self.step_tokens < self.max_sequences:
            raise UsageError(f"step_tokens = {self.step_tokens} is less than max_sequences = {self.max_sequences}")
