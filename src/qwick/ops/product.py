"""One op on one weight as a program of its own: the real drivers and kernels, to be measured or checked alone."""

from collections.abc import Sequence
from typing import Generic

import numpy as np

from qwick.ops.contract import Backend, Batch, Float32, Int32, Network, Ops, Outputs, Result, Role, Run, S, V, W


class Product(Generic[W]):
    """y = x weight^T for up to `max_rows` rows, with the numerics of a role.

    `others` are multiplied with x before it, each an op of its own: a step in small, for measuring.
    """

    def __init__(self, backend: Backend[W], weight: W, max_rows: int, others: Sequence[W] = ()) -> None:
        def multiply(ops: Ops[V, W, S], step: S) -> Outputs[V]:
            x = ops.hidden(step)
            for other in others:
                ops.linear(x, [other])
            return Outputs(hidden=ops.linear(x, [weight])[0])

        network: Network[W] = multiply
        self._program = backend.compile(network, max_tokens=max_rows)

    def __call__(self, x: Float32, role: Role) -> Float32:
        """x [rows, k] -> [rows, n], valid until the next call."""
        return _hidden(self._program.run(_batch(np.zeros(len(x), np.int32), role, x)))


class Gather(Generic[W]):
    """Rows of a weight as the embedding reads them: exactly what memory holds."""

    def __init__(self, backend: Backend[W], weight: W, max_rows: int) -> None:
        def gather(ops: Ops[V, W, S], step: S) -> Outputs[V]:
            return Outputs(hidden=ops.embed(weight, step))

        network: Network[W] = gather
        self._program = backend.compile(network, max_tokens=max_rows)

    def __call__(self, rows: Int32) -> Float32:
        """rows [n] -> [n, k], valid until the next call."""
        return _hidden(self._program.run(_batch(rows, Role.PROMPT, None)))


def _batch(token_ids: Int32, role: Role, x: Float32 | None) -> Batch:
    angles = np.zeros((len(token_ids), 0), np.float32)
    run = Run(len(token_ids), role, context_len=0, slot=0, pages=())
    return Batch(token_ids, angles, angles, (run,), np.empty(0, np.int32), hidden=x)


def _hidden(result: Result) -> Float32:
    assert result.hidden is not None
    return result.hidden
