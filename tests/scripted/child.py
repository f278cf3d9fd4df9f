"""The main module of an engine's process whose model is a script: all else is `qwick.engine_child`'s."""

from functools import partial
from typing import Any

from qwick import constraining
from qwick.engine.engine import Engine
from qwick.engine.worker import run_child
from qwick.model.source import LoadProgress, open_source
from qwick.opening import EngineOptions
from qwick.store import find_model
from qwick.text.tokenizer import Tokenizer
from tests.scripted.network import scripted_model
from tests.scripted.words import Words


def open_scripted_engine(options: tuple[str, EngineOptions], progress: LoadProgress) -> tuple[Engine, dict[str, Any]]:
    """As `engine_child.open_model_engine`, of a folder whose weights are not read."""
    name, engine_options = options
    found = find_model(name)
    with open_source(found) as source:
        tokenizer, config = Tokenizer.open(found, source.metadata), source.config
    model = scripted_model(config, Words(tokenizer, config.vocab_size))
    constraints = constraining.TokenConstraints(partial(_same, tokenizer), config.vocab_size)
    engine = Engine(model, engine_options.config(config.max_position_embeddings), constraints=constraints)
    facts = {
        name: getattr(model.backend, name)
        for name in ("isa", "threads", "threads_batch", "weight_bytes", "cache_bytes")
    }
    return engine, facts


def _same(tokenizer: Tokenizer) -> Tokenizer:
    return tokenizer


if __name__ == "__main__":
    constraining.MOST_SECONDS = 60.0  # of preparing a grammar: tests have no timing
    run_child(open_scripted_engine)
