"""A network on a backend: open it, run batches. The only thing of `model/` that the engine holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic

from qwick.errors import ConfigError
from qwick.formats import Format
from qwick.model.config import ModelConfig
from qwick.model.load import load_network, memory_bytes
from qwick.model.qwen3_5 import Qwen3_5
from qwick.model.rope import RopeTable
from qwick.model.source import LoadProgress, Source, open_source
from qwick.ops.contract import Backend, Batch, CommitBatch, Program, Result, W
from qwick.ops.native import NativeBackend, NativeWeight


class Model(Generic[W]):
    """Weights in memory; after `open`, a cache and compiled programs.

    Not thread-safe: one caller at a time. Results are valid until the next run of the same program.
    """

    def __init__(self, network: Qwen3_5[W], backend: Backend[W]) -> None:
        self.config: ModelConfig = network.config
        self.rope = RopeTable(network.config)
        self.backend = backend
        self._network = network
        self._programs: dict[str, Program] = {}

    def weight(self, name: str) -> W:
        """A weight by its canonical name, for checks. Raises KeyError."""
        return self._network.weights[name]

    def program(self, name: str) -> Program:
        """A compiled program ("forward", "draft", "commit"), to be measured. Raises KeyError."""
        return self._programs[name]

    def open(self, *, num_pages: int, num_slots: int, max_tokens: int, kv_format: str = "f16") -> None:
        """Allocate a cache and compile for batches of up to `max_tokens` rows. Raises CapacityError."""
        self.backend.open_cache(self.config.cache_shape(num_pages=num_pages, num_slots=num_slots, kv_format=kv_format))
        self._programs = {
            name: self.backend.compile(network, max_tokens=max_tokens)
            for name, network in self._network.programs().items()
        }

    def forward(self, batch: Batch) -> Result:
        """Run the trunk: logits (or top-k) of the wanted rows, normed hidden state of all."""
        return self._programs["forward"].run(batch)

    def draft(self, batch: Batch) -> Result:
        """Run the MTP block; `batch.hidden` holds h_p, `token_ids` the tokens p + 1. Raises ConfigError without one."""
        if not self.config.has_mtp:
            raise ConfigError("this checkpoint has no MTP block to draft with")
        return self._programs["draft"].run(batch)

    def commit(self, batch: CommitBatch) -> None:
        """Advance the recurrent states over accepted draft tokens."""
        self._programs["commit"].run(batch)


def open_model(
    source: Path | Source,
    *,
    format: Format | None = None,
    threads: int | None = None,
    threads_batch: int | None = None,
    isa: str | None = None,
    lock_memory: bool = False,
    progress: LoadProgress | None = None,
    beside: Callable[[], None] | None = None,
) -> Model[NativeWeight]:
    """Read a model's folder or GGUF file into native memory; matrices in `format`, or as the file has them.

    A `Source` stays open; `beside` is as in `load_network`.
    Raises CheckpointError, ConfigError, KernelError, CapacityError, leaving nothing allocated.
    """
    if isinstance(source, Path):
        with open_source(source) as opened:
            return open_model(
                opened,
                format=format,
                threads=threads,
                threads_batch=threads_batch,
                isa=isa,
                lock_memory=lock_memory,
                progress=progress,
                beside=beside,
            )
    backend = NativeBackend(
        threads=threads,
        threads_batch=threads_batch,
        isa=isa,
        reserve_bytes=memory_bytes(source, format),
        lock_memory=lock_memory,
    )
    return Model(load_network(source, backend, format, source.counting(progress), beside), backend)
