"""The main module of an engine's process whose model is a script: all else is `qwick.engine_child`'s.

With the variable FREE_CALLS in its environment no grammar keeps tool calls in their form: then all that a model might
write comes, and what is read of it can be tested.
"""

import os
from functools import partial
from typing import Any

from qwick import constraining
from qwick.engine.constraint import Constraint, Grammar
from qwick.engine.engine import Engine
from qwick.engine.worker import run_child
from qwick.errors import UsageError
from qwick.model.source import LoadProgress, open_source
from qwick.opening import EngineOptions
from qwick.store import find_model
from qwick.text.tokenizer import Tokenizer
from tests.scripted.network import scripted_model
from tests.scripted.words import Words

FREE_CALLS = "FREE_CALLS"


class FreeCalls(constraining.TokenConstraints):
    """Grammars of all kinds but that of calls."""

    def start(self, grammar: Grammar) -> Constraint:
        if str(grammar.kind) == "tools":
            raise UsageError("calls are free here")
        return super().start(grammar)


def open_scripted_engine(options: tuple[str, EngineOptions], progress: LoadProgress) -> tuple[Engine, dict[str, Any]]:
    """As `engine_child.open_model_engine`, of a folder whose weights are not read."""
    name, engine_options = options
    found = find_model(name)
    with open_source(found) as source:
        tokenizer, config = Tokenizer.open(found, source.metadata), source.config
    model = scripted_model(config, Words(tokenizer, config.vocab_size))
    kind = FreeCalls if os.environ.get(FREE_CALLS) else constraining.TokenConstraints
    constraints = kind(partial(_same, tokenizer), config.vocab_size)
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
