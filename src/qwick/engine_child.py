"""The main module of an engine's own process (`python -m qwick.engine_child`): opens a model's engine and serves it."""

from functools import partial
from pathlib import Path
from typing import Any, cast

from qwick.constraining import TokenConstraints
from qwick.engine.engine import Engine
from qwick.engine.worker import run_child
from qwick.model.source import LoadProgress, open_source
from qwick.opening import EngineOptions, open_engine
from qwick.ops.native import NativeBackend
from qwick.store import find_model
from qwick.text.tokenizer import Tokenizer


def open_model_engine(options: tuple[str, EngineOptions], progress: LoadProgress) -> tuple[Engine, dict[str, Any]]:
    """Of the model that the caller calls so; with facts of the machine and memory."""
    name, engine_options = options
    found = find_model(name)
    with open_source(found) as source:
        constraints = TokenConstraints(partial(_tokenizer, found), source.config.vocab_size)
        engine = open_engine(name, source, engine_options, progress, constraints=constraints)
    backend = cast("NativeBackend", engine.model.backend)
    facts = {
        name: getattr(backend, name) for name in ("isa", "threads", "threads_batch", "weight_bytes", "cache_bytes")
    }
    return engine, facts


def _tokenizer(found: Path) -> Tokenizer:
    """Read when a grammar needs it; ids are all that the engine itself knows."""
    with open_source(found) as source:
        return Tokenizer.open(found, source.metadata)


if __name__ == "__main__":
    run_child(open_model_engine)
