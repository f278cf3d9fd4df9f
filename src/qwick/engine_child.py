"""The main module of an engine's own process (`python -m qwick.engine_child`): opens a model's engine and serves it."""

from typing import Any, cast

from qwick.engine.engine import Engine
from qwick.engine.worker import run_child
from qwick.model.source import LoadProgress, open_source
from qwick.opening import EngineOptions, open_engine
from qwick.ops.native import NativeBackend
from qwick.store import find_model


def open_model_engine(options: tuple[str, EngineOptions], progress: LoadProgress) -> tuple[Engine, dict[str, Any]]:
    """Of the model that the caller calls so; with facts of the machine and memory."""
    name, engine_options = options
    with open_source(find_model(name)) as source:
        engine = open_engine(name, source, engine_options, progress)
    backend = cast("NativeBackend", engine.model.backend)
    facts = {
        name: getattr(backend, name) for name in ("isa", "threads", "threads_batch", "weight_bytes", "cache_bytes")
    }
    return engine, facts


if __name__ == "__main__":
    run_child(open_model_engine)
