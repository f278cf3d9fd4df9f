"""An engine's child process that fails in the ways of a real one when it reads certain tokens."""

import ctypes
import os
import signal
import time

from qwick.engine.worker import run_child
from qwick.engine_child import open_model_engine

RAISE, SEGV, KILL, HANG = 501, 502, 503, 504


def open_faulty(options, progress):
    engine, facts = open_model_engine(options, progress)
    forward = engine.model.forward

    def fail_or_forward(batch):
        tokens = set(batch.token_ids.tolist())
        if RAISE in tokens:
            raise ValueError("a bug")
        if SEGV in tokens:
            ctypes.string_at(0)
        if KILL in tokens:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANG in tokens:
            time.sleep(10_000)
        return forward(batch)

    engine.model.forward = fail_or_forward
    return engine, facts


if __name__ == "__main__":
    run_child(open_faulty)
