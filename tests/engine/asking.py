"""Requests to a small hard-random model, and what it answers."""

import numpy as np

from tests.checkpoints import small_config

CONFIG = small_config(num_hidden_layers=2, full_attention_interval=2, tie_word_embeddings=False)


def prompt(length, seed=0):
    return tuple(int(i) for i in np.random.default_rng(seed).integers(0, 512, length))


def answers(engine, requests):
    """Run all at once; token ids by request."""
    ids = {engine.add(request): i for i, request in enumerate(requests)}
    out = [[] for _ in requests]
    while engine.has_work:
        for event in engine.step():
            out[ids[event.sequence_id]].append(event.token_id)
        engine.check()
    return out
