"""A network on a backend: open it, run batches. The only thing of `model/` that the engine holds."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Generic

from qwick.errors import ConfigError, PackError
from qwick.formats import Format
from qwick.model.config import ModelConfig
from qwick.model.load import load_network, matrix_bytes, memory_bytes
from qwick.model.packed import from_pack, holds, identity_of, save
from qwick.model.qwen3_5 import Qwen3_5
from qwick.model.rope import RopeTable
from qwick.model.source import LoadProgress, Source, open_source
from qwick.ops.contract import Backend, Batch, CommitBatch, Program, Progress, Result, W
from qwick.ops.native import NativeBackend, NativeWeight
from qwick.weights.pack_cache import open_pack, warn_unusable
from qwick.weights.pack_file import Identity, Pack


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

    @property
    def network(self) -> Qwen3_5[W]:
        """With its weights bound."""
        return self._network

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
    pack_cache: bool = False,
    progress: LoadProgress | None = None,
    beside: Callable[[], None] | None = None,
) -> Model[NativeWeight]:
    """Read a model's folder or GGUF file into native memory; matrices in `format`, or as the file has them.

    A `Source` stays open; `beside` is as in `load_network`. `pack_cache`: read the matrices as an earlier call left
    them in the pack cache, or leave them there; `progress` counts what is written, too.
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
                pack_cache=pack_cache,
                progress=progress,
                beside=beside,
            )

    def load(pack: Pack | None, count: Progress) -> Model[NativeWeight]:
        backend = NativeBackend(
            threads=threads,
            threads_batch=threads_batch,
            isa=isa,
            reserve_bytes=memory_bytes(source, format),
            lock_memory=lock_memory,
        )
        packed = partial(from_pack, pack, backend) if pack else None
        return Model(load_network(source, backend, format, count, beside, packed), backend)

    if not pack_cache:
        return load(None, source.counting(progress))
    identity, packed_bytes = identity_of(source, format), matrix_bytes(source, format)
    vector_bytes = sum(source.info(spec).num_bytes for spec in source.specs if not spec.matrix)
    count = source.counting(progress, packed_bytes + vector_bytes)
    packed_model = _load_pack(identity, source, format, lambda pack: load(pack, count))
    if packed_model:
        return packed_model
    count = source.counting(progress, source.num_bytes + packed_bytes)
    model = load(None, count)
    save(identity, model.network, source, format, count)
    return model


def _load_pack(
    identity: Identity, source: Source, format: Format | None, load: Callable[[Pack], Model[NativeWeight]]
) -> Model[NativeWeight] | None:
    """None when there is no pack, or (StateWarning) none that can be used; nothing stays allocated then."""
    pack = open_pack(identity)
    if pack is None:
        return None
    with pack:
        if not holds(pack, source, format):
            warn_unusable(f"{pack.path}: its tensors are not those of the model")
            return None
        try:
            return load(pack)
        except PackError as error:
            warn_unusable(str(error))
            return None
